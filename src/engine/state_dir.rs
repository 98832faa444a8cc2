//! What a state directory is known by: a random name that is made with it. Some of what lies in it is nowhere else (the logs of
//! tables outside), so state that was taken beside another one is of no use where that is needed.

use std::fs;
use std::io;
use std::path::Path;

use crate::sink::lease::random_name;

const FILE: &str = "id";

/// The name of a state directory, which it gets when it is asked for first.
pub fn name_of(state_dir: &Path) -> io::Result<String> {
    let path = state_dir.join(FILE);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = random_name();
            let unfinished = state_dir.join("id.unfinished");
            fs::write(&unfinished, &name)?;
            fs::rename(&unfinished, &path)?;
            Ok(name)
        }
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_keeps_its_name_and_no_other_has_it() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, other] = folders.each_ref().map(|folder| name_of(folder.path()).unwrap());
        assert_eq!(name_of(folders[0].path()).unwrap(), one);
        assert!(one != other && one.len() == 32, "{one} {other}");
    }
}
