//! Money in FLOAT and DOUBLE, which have no tenths: 0.1 + 0.2 is not 0.3.

use std::collections::BTreeMap;

use super::codes::FLOAT_MONEY;
use crate::catalog::{Format, place_of_column};
use crate::diagnostic::Diagnostic;
use crate::plan::flow::FlowPlan;
use crate::plan::wording::sql_type;
use crate::project::Project;
use crate::tag;

/// Words of which one in a column's name says that it is money.
const WORDS: &[&str] = &[
    "amount", "price", "cost", "fee", "fees", "spend", "revenue", "balance", "payment", "paid", "refund", "salary",
    "income", "金额", "价格", "费用", "余额", "收入",
];
/// Units of money in headers.
const UNITS: &[&str] = &["CNY", "RMB", "USD", "EUR", "GBP", "JPY", "HKD", "INR", "KRW", "元", "¥", "€", "$", "£"];

/// Columns of money whose type is a binary fraction: those of streams by their names, those of tags by their units.
pub(super) fn in_floats(project: &Project, plans: &BTreeMap<&str, &FlowPlan>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for stream in project.catalog.streams.values() {
        for column in stream.columns.iter().filter(|column| column.data_type.is_floating() && is_money(&column.name)) {
            let text = project.sources.get(&stream.file).map(String::as_str).unwrap_or_default();
            let place = place_of_column(&stream.file, text, &column.name);
            let message =
                format!("`{}` looks like money, and a {} has no tenths", column.name, sql_type(&column.data_type));
            // A binary format has doubles where its producers write them: the cast is the schema's all the same.
            let help = match stream.format {
                Format::Parquet => "write DECIMAL(18,2) where the file has decimals, or CAST it in the tags",
                _ => "write DECIMAL(18,2): it is read exactly, digit by digit",
            };
            found.push(Diagnostic::warning(FLOAT_MONEY, &stream.file, place, message).help(help));
        }
    }
    for (name, plan) in plans {
        let Some(definition) = project.tags.get(*name) else { continue };
        for column in plan.columns.iter().filter(|column| column.data_type.is_floating()) {
            let said = definition.header.columns.get(&column.name);
            let Some(unit) = said.and_then(|said| said.unit.as_deref()).filter(|unit| UNITS.contains(unit)) else {
                continue;
            };
            let message = format!("`{}` is money ({unit}), and a DOUBLE has no tenths", column.name);
            let place = tag::place_of_column(&definition.file, &definition.text, &column.name);
            let help = "compute it of DECIMALs, or CAST the result AS DECIMAL(18,2)";
            found.push(Diagnostic::warning(FLOAT_MONEY, &definition.file, place, message).help(help));
        }
    }
    found
}

fn is_money(name: &str) -> bool {
    let name = name.to_lowercase();
    WORDS.iter().any(|word| match word.is_ascii() {
        true => name.split('_').any(|part| part == *word),
        false => name.contains(word),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_told_by_whole_words() {
        for name in ["amount", "order_amount", "Price", "unit_price", "订单金额"] {
            assert!(is_money(name), "{name}");
        }
        for name in ["pricey", "weight", "feedback", "coffee", "duration"] {
            assert!(!is_money(name), "{name}");
        }
    }
}
