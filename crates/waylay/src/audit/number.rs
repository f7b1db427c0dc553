//! How numbers are written for people: one decimal for percentages, a dash for what is unknown.

/// What stands where there is no finite number.
const UNKNOWN: &str = "–";

/// `0.912` as `91.2 %`.
pub(crate) fn percent(fraction: f64) -> String {
    if fraction.is_finite() { format!("{:.1} %", unsigned_zero(fraction * 100.0, 1)) } else { UNKNOWN.into() }
}

/// A number with `digits` decimals.
pub(crate) fn fixed(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{:.digits$}", unsigned_zero(value, digits)) } else { UNKNOWN.into() }
}

/// A number with `digits` decimals, or a dash.
pub(crate) fn fixed_or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| fixed(value, digits))
}

/// A number with at most `digits` decimals, without trailing zeros: `8`, `2.5`.
pub(crate) fn short(value: f64, digits: usize) -> String {
    let text = fixed(value, digits);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Seconds as `42 s`, `3 min 20 s` or `1 h 5 min`.
#[cfg(any(test, feature = "html"))]
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return UNKNOWN.into();
    }
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..10 => format!("{} s", fixed(seconds.max(0.0), 1)),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `1234567` as `1,234,567`.
#[cfg(any(test, feature = "html"))]
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `-0.0` and what rounds to it would be written `-0.0`.
fn unsigned_zero(value: f64, digits: usize) -> f64 {
    if value.abs() < 0.5 * 10f64.powi(-(digits as i32)) { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_one_decimal() {
        for (fraction, text) in [
            (0.0, "0.0 %"),
            (-0.0001, "0.0 %"),
            (0.0604, "6.0 %"),
            (0.912, "91.2 %"),
            (1.0, "100.0 %"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(percent(fraction), text);
        }
    }

    #[test]
    fn short_numbers_drop_trailing_zeros_only() {
        for (value, text) in [(8.0, "8"), (2.5, "2.5"), (100.0, "100"), (0.125, "0.12"), (f64::INFINITY, "–")]
        {
            assert_eq!(short(value, 2), text);
        }
    }

    #[test]
    fn thousands_are_grouped() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn durations_use_the_fitting_unit() {
        for (seconds, text) in
            [(0.04, "0.0 s"), (9.44, "9.4 s"), (42.4, "42 s"), (200.0, "3 min 20 s"), (3_900.0, "1 h 5 min")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
