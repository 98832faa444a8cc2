//! Codes of diagnostics as arguments: whatever their case, and completed by the shell with what they mean.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;

use crate::diagnostic::{Explanation, LINTS, explain, explanations, nearest};

/// Reads a code as its entry in the page of codes.
#[derive(Clone, Copy)]
pub(super) struct Codes;

impl TypedValueParser for Codes {
    type Value = Explanation;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Explanation, clap::Error> {
        let value = value.to_string_lossy();
        let of_lint = LINTS.iter().find(|(lint, _)| *lint == value).map(|(_, code)| *code);
        explain(of_lint.unwrap_or(&value)).ok_or_else(|| {
            let near = nearest(&value, explanations().map(|entry| entry.code));
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            let message = format!(
                "there is no code \"{value}\"{near}\n\nCodes are T and four digits, as `tagflow check` prints them: T0504; lints have names, too: ties.\n"
            );
            clap::Error::raw(ErrorKind::InvalidValue, message).with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(explanations().map(|entry| PossibleValue::new(entry.code).help(entry.title()))))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn shells_complete_codes_and_help_does_not_list_them() {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Zsh, &mut Cli::command(), "tagflow", &mut script);
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("T0504\\:\"grouping sets\""), "{script}");
        let mut command = Cli::command();
        let check = command.find_subcommand_mut("check").unwrap();
        assert!(!check.render_long_help().to_string().contains("T0505"));
    }

    #[test]
    fn a_code_that_is_none_gets_the_nearest() {
        let parse = |code: &str| Codes.parse_ref(&Cli::command(), None, OsStr::new(code));
        assert_eq!(parse("t0504").unwrap().code, "T0504");
        assert_eq!(parse("ties").unwrap().code, "T0705");
        let message = parse("T050").unwrap_err().to_string();
        assert!(message.starts_with("error: there is no code \"T050\"; did you mean T0500?"), "{message}");
    }
}
