//! `tagflow new tag` and `tagflow new schema`: a file to begin with, in the columns that the project really has.
//!
//! Asks nothing, on no terminal: what cannot be told from the project is an option. Never writes over a file.

mod columns;
mod proposal;
mod schema;
mod tag;
mod templates;

use std::fs;
use std::io::Write;
use std::path::Path;

use datafusion::sql::sqlparser::keywords::{
    ALL_KEYWORDS, ALL_KEYWORDS_INDEX, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_IDENTIFIER, RESERVED_FOR_TABLE_ALIAS,
};

use crate::cli::{Format, print};

/// Arguments of `tagflow new`.
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write a tag file out of a template.
    Tag(tag::TagArgs),
    /// Write a schema file, by hand or out of what a topic or a table holds.
    Schema(schema::SchemaArgs),
}

/// Writes the file.
pub fn run(args: &NewArgs, out: &mut dyn Write) -> u8 {
    match &args.what {
        What::Tag(args) => tag::run(args, out),
        What::Schema(args) => schema::run(args, out),
    }
}

/// Writes a new file below the project's folder.
fn write_new(root: &Path, file: &Path, text: &str) -> std::io::Result<()> {
    let path = root.join(file);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::File::create_new(path)?.write_all(text.as_bytes())
}

/// Says what was written, with what else there is to say of it.
fn report(out: &mut dyn Write, format: Format, file: &Path, facts: &serde_json::Value, remarks: &[String]) {
    match format {
        Format::Human => {
            print(out, &format!("written {}\n", file.display()));
            remarks.iter().for_each(|remark| print(out, &format!("  {remark}\n")));
        }
        Format::Json => {
            let whole = serde_json::json!({ "file": file, "facts": facts, "remarks": remarks });
            print(out, &format!("{whole:#}\n"));
        }
    }
}

/// A name as SQL takes it: in quotes where it would be read as something else.
pub(crate) fn ident(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let upper = name.to_ascii_uppercase();
    let keyword = ALL_KEYWORDS.binary_search(&upper.as_str()).ok().map(|place| ALL_KEYWORDS_INDEX[place]);
    let is_reserved = keyword.is_some_and(|keyword| {
        [RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS, RESERVED_FOR_IDENTIFIER]
            .iter()
            .any(|words| words.contains(&keyword))
    });
    if is_plain && !is_reserved { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A text as TOML takes it.
fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

#[cfg(test)]
mod tests;
