//! The audit as plain text for a terminal.

use crate::audit::number::{fixed, fixed_or_dash, percent};
use crate::audit::outcome::AuditReport;
use crate::audit::rows;

/// Aligned columns, clean row first, then the verdict. Lines end in a newline and hold no control
/// characters.
pub fn to_text(audit: &AuditReport) -> String {
    let header =
        ["attack", "forwards", "gradients", "rank-1", "mAP", "PSNR dB", "SSIM", "ms/image", "training s"]
            .map(String::from);
    let unchanged = String::new;
    let clean = [
        "none (clean)".into(),
        unchanged(),
        unchanged(),
        percent(audit.clean.rank1),
        percent(audit.clean.map),
        unchanged(),
        unchanged(),
        unchanged(),
        unchanged(),
    ];
    let attacks = rows::attacks(&audit.attacks).map(|row| {
        [
            row.label.chars().filter(|c| !c.is_control()).collect(),
            row.knowledge.target_forwards.to_string(),
            row.knowledge.target_gradients.to_string(),
            percent(row.scores.rank1),
            percent(row.scores.map),
            fixed_or_dash(row.psnr_db, 1),
            fixed(row.ssim, 3),
            fixed(row.ms_per_image, 1),
            row.train_seconds.map_or_else(unchanged, |seconds| fixed(seconds, 0)),
        ]
    });
    let worst = audit.worst_case.iter().map(|worst| {
        let mut line = std::array::from_fn(|_| unchanged());
        line[0] = "worst case per query".into();
        line[3] = percent(worst.rank1);
        line[4] = percent(worst.map);
        line
    });
    let lines: Vec<[String; 9]> = [header, clean].into_iter().chain(attacks).chain(worst).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().enumerate().map(|(column, cell)| {
            let width =
                lines.iter().filter_map(|l| l.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    let verdict: String = audit.verdict.chars().filter(|c| !c.is_control()).collect();
    text + "\n" + &verdict + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn the_clean_row_comes_first_and_columns_align() {
        let text = to_text(&example::audit());
        let lines: Vec<&str> = text.lines().collect();
        let header =
            "attack                forwards  gradients  rank-1     mAP  PSNR dB   SSIM  ms/image  training s";
        assert_eq!(lines[0], header);
        assert_eq!(lines[1], "none (clean)                               99.0 %  91.2 %");
        assert_eq!(
            lines[2],
            "Random noise                 0          0  99.0 %  90.8 %     30.1  0.741       0.1"
        );
        assert_eq!(lines[6].split_whitespace().last(), Some("362"));
        assert!(lines[6].starts_with("UAA-GAN, image only          0          0   2.5 %   6.0 %"));
        assert_eq!(lines[7], "worst case per query                        7.7 %   0.9 %");
        assert_eq!(lines[8], "");
        assert!(lines[9].starts_with("At ε = 8/255"));
        assert_eq!(lines.len(), 10);
    }
}
