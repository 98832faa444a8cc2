//! The `tagflow` binary; see the library for everything.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tagflow::cli::main())
}
