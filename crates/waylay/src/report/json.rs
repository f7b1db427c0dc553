//! `report.json`: the audit as it is. Layout in docs/report-json.md.

use serde_json::{Map, Value};

use super::ReportError;
use crate::audit::outcome::{AuditReport, SCHEMA};

/// Fields that may be `null`; everywhere else, `null` is how serde_json writes a number that is not
/// finite.
const OPTIONAL: [&str; 10] = [
    "grade",
    "strongest",
    "identities",
    "worst_case",
    "psnr_db",
    "trained_against",
    "train_seconds",
    "first_match",
    "average_precision",
    "config",
];

/// The audit as indented JSON that ends in a newline; an error where a number is not finite.
/// Pictures stay out.
pub fn to_json(audit: &AuditReport) -> Result<String, ReportError> {
    let value = serde_json::to_value(audit)?;
    if let Some(field) = first_null(&value, "") {
        return Err(ReportError::NotFinite { field });
    }
    let mut text = serde_json::to_string_pretty(audit)?;
    text.push('\n');
    Ok(text)
}

/// The audit that [`to_json`] wrote, without its pictures; an error for another schema. Unknown
/// fields are ignored.
pub fn from_json(text: &str) -> Result<AuditReport, ReportError> {
    let fields: Map<String, Value> = serde_json::from_str(text)?;
    let found = fields.get("schema").and_then(Value::as_str).unwrap_or("none");
    if found != SCHEMA {
        return Err(ReportError::Schema { found: found.into(), expected: SCHEMA });
    }
    Ok(serde_json::from_value(Value::Object(fields))?)
}

/// Path of the first `null` that stands for a number, such as `attacks.2.ssim`.
fn first_null(value: &Value, path: &str) -> Option<String> {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Null => Some(path.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| first_null(item, &join(&index.to_string())))
        }
        Value::Object(fields) => fields.iter().find_map(|(key, item)| {
            let may_be_null = OPTIONAL.contains(&key.as_str()) && (item.is_null() || key != "worst_case");
            if may_be_null { None } else { first_null(item, &join(key)) }
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn what_is_written_can_be_read_back() {
        let text = to_json(&example::audit()).unwrap();
        assert!(text.ends_with("}\n"));
        let again = to_json(&from_json(&text).unwrap()).unwrap();
        assert_same(&serde_json::from_str(&again).unwrap(), &serde_json::from_str(&text).unwrap());
    }

    /// serde_json reads a number of 16 or more digits to within its last bit only.
    fn assert_same(left: &Value, right: &Value) {
        match (left, right) {
            (Value::Object(l), Value::Object(r)) => {
                assert!(l.keys().eq(r.keys()));
                l.values().zip(r.values()).for_each(|(l, r)| assert_same(l, r));
            }
            (Value::Array(l), Value::Array(r)) => {
                assert_eq!(l.len(), r.len());
                l.iter().zip(r).for_each(|(l, r)| assert_same(l, r));
            }
            (Value::Number(l), Value::Number(r)) if l.is_f64() && r.is_f64() => {
                approx::assert_relative_eq!(l.as_f64().unwrap(), r.as_f64().unwrap(), max_relative = 1e-15);
            }
            _ => assert_eq!(left, right),
        }
    }

    #[test]
    fn scores_stand_beside_the_name_of_their_attack() {
        let value: Value = serde_json::from_str(&to_json(&example::audit()).unwrap()).unwrap();
        assert_eq!(value["schema"], SCHEMA);
        assert_eq!(value["budget"]["epsilon_255"], 8.0);
        assert_eq!(value["attacks"][1]["name"], "noise");
        assert_eq!(value["attacks"][1]["map"], 0.908);
    }

    #[test]
    fn another_schema_is_refused_by_name() {
        let text = to_json(&example::audit()).unwrap().replacen(SCHEMA, "waylay.audit/9", 1);
        let error = from_json(&text).unwrap_err().to_string();
        assert_eq!(error, "report of schema `waylay.audit/9`; this version reads `waylay.audit/2`");
        assert!(matches!(from_json("{}"), Err(ReportError::Schema { .. })));
        assert!(matches!(from_json("[]"), Err(ReportError::Json(_))));
    }

    #[test]
    fn later_fields_do_not_disturb() {
        let text = to_json(&example::audit()).unwrap().replacen('{', "{\n  \"later\": 1,", 1);
        assert!(from_json(&text).is_ok());
    }

    #[test]
    fn what_was_not_judged_is_null() {
        let mut audit = example::audit();
        (audit.grade, audit.strongest, audit.worst_case) = (None, None, None);
        let value: Value = serde_json::from_str(&to_json(&audit).unwrap()).unwrap();
        assert!(["grade", "strongest", "worst_case"].iter().all(|field| value[field].is_null()));
    }

    #[test]
    fn a_number_that_json_cannot_hold_is_named() {
        let mut audit = example::audit();
        audit.attacks[2].ssim = f64::NAN;
        let error = to_json(&audit).unwrap_err().to_string();
        assert_eq!(error, "`attacks.2.ssim` is not a finite number; a report holds no others");
    }
}
