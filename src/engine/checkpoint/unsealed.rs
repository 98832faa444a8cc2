//! For tests: bytes of a manifest or a segment behind their checksums, which would refuse all but what was written.

use super::fold::Fold;
use super::manifest::{Manifest, Unreadable};
use super::segment;

/// Reads the body of a manifest. What is read is written and read again as the same.
pub(crate) fn read_manifest(body: &[u8]) -> Result<(), String> {
    let read = |bytes: &[u8]| {
        Manifest::decode(bytes).map_err(|unreadable| match unreadable {
            Unreadable::Damaged(reason) => reason,
            Unreadable::Version(found) => format!("format {found}"),
        })
    };
    let manifest = read(&Manifest::seal(body))?;
    assert_eq!(read(&manifest.encode()?)?, manifest);
    Ok(())
}

/// Reads a segment and lays it over itself. What is read is written and read again as the same.
pub(crate) fn read_segment(bytes: &[u8]) -> Result<(), String> {
    let parts = segment::decode(bytes)?;
    let again = segment::decode(&segment::encode(&parts)?)?;
    for (part, again) in parts.iter().zip(&again) {
        assert_eq!((&part.name, part.key, &part.batch), (&again.name, again.key, &again.batch));
    }
    assert_eq!(parts.len(), again.len());
    let mut fold = Fold::new(&parts.iter().map(|part| part.name.clone()).collect());
    for parts in [parts, again] {
        fold.add(parts)?;
        fold.end_run();
    }
    Ok(())
}
