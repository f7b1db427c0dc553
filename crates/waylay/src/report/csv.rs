//! The attacks as comma-separated values (RFC 4180), one row each, numbers in the units of
//! `report.json`.

use crate::audit::outcome::AuditReport;

/// A header and one line per attack, in the order they ran; fractions in [0, 1], empty where there
/// is nothing to measure.
pub fn to_csv(audit: &AuditReport) -> String {
    let mut text = String::from(
        "name,label,access,trained_against,target_forwards,target_gradients,epsilon_255,rank1,rank5,rank10,map,minp,linf_255,l2,psnr_db,ssim,ms_per_image,train_seconds,\
         mean_cosine\r\n",
    );
    for row in &audit.attacks {
        let s = &row.scores;
        let numbers = [
            Some(row.epsilon_255),
            Some(s.rank1),
            Some(s.rank5),
            Some(s.rank10),
            Some(s.map),
            Some(s.minp),
            Some(row.linf_255),
            Some(row.l2),
            row.psnr_db,
            Some(row.ssim),
            Some(row.ms_per_image),
            row.train_seconds,
            Some(row.mean_cosine),
        ];
        let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let mut fields = vec![
            field(&row.name),
            field(&row.label),
            word(serde_json::json!(row.knowledge.access)),
            word(serde_json::json!(row.trained_against)),
            row.knowledge.target_forwards.to_string(),
            row.knowledge.target_gradients.to_string(),
        ];
        fields.extend(numbers.map(|n| n.map(|n| n.to_string()).unwrap_or_default()));
        text += &fields.join(",");
        text += "\r\n";
    }
    text
}

/// Quoted where a comma, quote or line break would end it early.
fn field(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn every_attack_is_one_line_of_the_headers_width() {
        let text = to_csv(&example::audit());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 7);
        assert_eq!(
            lines[3],
            "fgsm,\"FGSM, 1 gradient\",gradients,,2,1,8,0.425,0.59,0.71,0.394,0.2,8,5.61,30.2,0.79,18.2,,0.61"
        );
        assert!(lines[6].starts_with("uaa-gan,\"UAA-GAN, image only\",image,target,0,0,8,"));
        assert!(lines[4].starts_with("pgd-10,\"PGD, 10 gradients\",gradients,,11,10,8,"));
    }

    #[test]
    fn quotes_inside_a_field_are_doubled() {
        assert_eq!(field("a \"b\""), "\"a \"\"b\"\"\"");
    }
}
