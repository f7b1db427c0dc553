//! The order in which people count: `s2` before `s10`.

/// What names are sorted by: part of the path by part, runs of digits by their value. Names in one
/// folder stay together, and different names never tie.
pub(super) fn natural_key(name: &str) -> Vec<(Vec<Run>, String)> {
    name.split('/').map(|part| (runs(part), part.to_string())).collect()
}

/// A run of digits, without leading zeros and with its length first so that it compares by value,
/// or of other text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Run {
    Number(usize, String),
    Text(String),
}

fn runs(part: &str) -> Vec<Run> {
    let mut rest = part;
    let mut runs = Vec::new();
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        let value = run.trim_start_matches('0');
        runs.push(if digits { Run::Number(value.len(), value.into()) } else { Run::Text(run.into()) });
        rest = after;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_by_value() {
        let mut names = ["s10/1.pgm", "s2/10.pgm", "s2/2.pgm", "s1/1.pgm", "s02/5.pgm", "s2/01.pgm"];
        names.sort_by_cached_key(|name| natural_key(name));
        assert_eq!(names, ["s1/1.pgm", "s02/5.pgm", "s2/01.pgm", "s2/2.pgm", "s2/10.pgm", "s10/1.pgm"]);
    }

    #[test]
    fn numbers_of_any_length_and_letters_of_any_script_have_an_order() {
        let long = "9".repeat(60);
        let mut names = vec![format!("1{long}"), long.clone(), "é2".into(), "é10".into(), String::new()];
        names.sort_by_cached_key(|name| natural_key(name));
        assert_eq!(names, [String::new(), long.clone(), format!("1{long}"), "é2".into(), "é10".into()]);
    }
}
