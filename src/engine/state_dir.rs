//! What a state directory is known by: a random name that is made with it. Some of what lies in it is nowhere else (the logs of
//! tables outside), so state that was taken beside another one is of no use where that is needed. And the files in it by which
//! commands leave word for the daemon.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sink::lease::random_name;
use crate::whole_file;

const FILE: &str = "id";

/// The name of a state directory, which it gets when it is asked for first.
pub fn name_of(state_dir: &Path) -> io::Result<String> {
    let path = state_dir.join(FILE);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = random_name();
            whole_file::write(&path, name.as_bytes())?;
            Ok(name)
        }
        found => found,
    }
}

/// What a file of a state directory says that commands leave there for the daemon; nothing where there is none.
pub fn read_json<T: DeserializeOwned + Default>(state_dir: &Path, file: &str) -> io::Result<T> {
    match fs::read(state_dir.join(file)) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error),
    }
}

/// Changes what such a file says: as a whole, and one after the other.
pub fn change_json<T: Serialize + DeserializeOwned + Default>(
    state_dir: &Path,
    file: &str,
    change: impl FnOnce(&mut T),
) -> io::Result<()> {
    fs::create_dir_all(state_dir)?;
    let lock = fs::File::create(state_dir.join(format!("{file}.lock")))?;
    lock.lock()?;
    let mut said: T = read_json(state_dir, file)?;
    change(&mut said);
    whole_file::write(&state_dir.join(file), &serde_json::to_vec(&said)?)
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
