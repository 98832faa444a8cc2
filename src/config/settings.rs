//! `[engine]` and `[serve]`: each key from the chosen profile, else from the file, else its default.

use std::path::Path;
use std::time::Duration;

use super::checkpoints::read_checkpoints;
use super::paths::path_of_machine;
use super::secrets::read_token;
use super::{CheckpointPlace, EngineConfig, Keeping, ServeConfig, is_loopback};
use crate::diagnostic::codes;
use crate::toml_walk::{Section, Walk};

const ENGINE_KEYS: &[&str] = &[
    "state_dir",
    "checkpoints",
    "checkpoint_interval",
    "checkpoints_kept",
    "checkpoints_kept_for",
    "flush_interval",
    "epoch_interval",
    "epoch_rows",
    "shards",
    "grace_period",
    "fill_lag",
    "lease",
    "state_limit",
    "memory_limit",
    "dead_letters",
];

/// Reads a value of both layers, so that both are checked; the upper one counts.
fn layered<T>(
    below: Option<&Section<'_>>,
    above: Option<&Section<'_>>,
    mut read: impl FnMut(&Section<'_>) -> Option<T>,
) -> Option<T> {
    let lower = below.and_then(&mut read);
    above.and_then(read).or(lower)
}

/// Reads `[engine]`; the state lies below `state_dir` in a folder of the profile's name.
pub(super) fn read_engine(
    walk: &mut Walk<'_>,
    below: Option<&Section<'_>>,
    above: Option<&Section<'_>>,
    root: &Path,
    state_folder: &str,
) -> EngineConfig {
    for section in below.iter().chain(above.iter()) {
        walk.check_keys(section, ENGINE_KEYS);
    }
    let mut duration =
        |key, least, default| layered(below, above, |section| walk.duration(section, key, least)).unwrap_or(default);
    let moment = Duration::from_millis(1);
    let checkpoint_interval = duration("checkpoint_interval", Duration::from_millis(100), Duration::from_secs(30));
    let kept_for = duration("checkpoints_kept_for", Duration::ZERO, Duration::ZERO);
    let flush_interval = duration("flush_interval", moment, Duration::from_millis(500));
    let epoch_interval = duration("epoch_interval", moment, Duration::from_millis(100));
    let grace_period = duration("grace_period", Duration::ZERO, Duration::from_secs(7 * 24 * 3600));
    let fill_lag = duration("fill_lag", Duration::from_millis(100), Duration::from_secs(5));
    let lease = duration("lease", Duration::from_secs(1), Duration::from_secs(6));
    let mut number = |key, range: std::ops::RangeInclusive<i64>, default: usize| {
        layered(below, above, |section| walk.integer(section, key, range.clone()))
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(default)
    };
    let epoch_rows = number("epoch_rows", 1..=100_000_000, 131_072);
    let keeping = Keeping { count: number("checkpoints_kept", 2..=10_000, 3), age: kept_for };
    let shards = number("shards", 1..=1024, 0);
    let state_dir = layered(below, above, |section| {
        let text = walk.text(section, "state_dir")?;
        path_of_machine(walk, section, "state_dir", text.value.as_deref()?, text.span, root)
    });
    let state_dir = state_dir.unwrap_or_else(|| root.join(".tagflow")).join(state_folder);
    let checkpoints = layered(below, above, |section| read_checkpoints(walk, section))
        .map_or(CheckpointPlace::StateDir, |place| place.of_profile(state_folder));
    let state_limit = layered(below, above, |section| walk.bytes(section, "state_limit"));
    let memory_limit = layered(below, above, |section| walk.bytes(section, "memory_limit"));
    let dead_letters = layered(below, above, |section| walk.bytes(section, "dead_letters")).unwrap_or(128 << 20);
    EngineConfig {
        state_dir,
        checkpoints,
        checkpoint_interval,
        keeping,
        flush_interval,
        epoch_interval,
        epoch_rows,
        shards,
        grace_period,
        fill_lag,
        lease,
        state_limit,
        memory_limit,
        dead_letters,
    }
}

/// Reads `[serve]`. Beyond this machine the console wants a token.
pub(super) fn read_serve(walk: &mut Walk<'_>, below: Option<&Section<'_>>, above: Option<&Section<'_>>) -> ServeConfig {
    for section in below.iter().chain(above.iter()) {
        walk.check_keys(section, &["listen", "token"]);
    }
    let listen = layered(below, above, |section| {
        let text = walk.text(section, "listen")?;
        let value = text.value.clone()?;
        let sound = value.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !sound {
            let message = format!("\"{}\" is not an address to listen on", text.raw);
            walk.error(codes::BAD_VALUE, text.span.clone(), message).help(
                "write host:port, such as \"127.0.0.1:7070\", or \"0.0.0.0:7070\" for every network of the machine",
            );
        }
        sound.then_some((value, text))
    });
    let token = layered(below, above, |section| read_token(walk, section));
    let has_token = [below, above].into_iter().flatten().any(|section| section.table.get("token").is_some());
    // Of a profile that is not chosen, the token may stand below it.
    let is_used = above.is_none_or(|section| section.used);
    if let Some((value, text)) = &listen
        && !is_loopback(value)
        && !has_token
        && is_used
    {
        let message = format!("\"listen\" is \"{}\", which others can reach, and there is no \"token\"", text.raw);
        walk.error(codes::NO_TOKEN, text.span.clone(), message)
            .help("add token = \"${TAGFLOW_TOKEN}\" below [serve], or listen on 127.0.0.1");
    }
    ServeConfig { listen: listen.map_or_else(|| ServeConfig::default().listen, |(value, _)| value), token }
}
