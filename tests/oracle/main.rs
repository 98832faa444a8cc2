//! The oracle test: after every epoch each tag equals DataFusion's batch answer over all events so far at that clock,
//! for random events, batches, shard counts, clock steps and restarts.
//!
//! `TAGFLOW_ORACLE_SEED=n` runs one seed alone; `TAGFLOW_ORACLE_SEEDS=n` runs n of them.

mod bounded;
mod cases;
mod changes;
mod emission;
mod events;
mod harness;
mod on_error;
mod panics;
mod queries;
mod random_sql;
mod saved;
mod tiled;
mod wall_clock;

use harness::Run;
use tagflow::plan::flow::NodeKind;

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("TAGFLOW_ORACLE_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("TAGFLOW_ORACLE_SEEDS").unwrap_or(3)).collect(),
    }
}

#[test]
fn every_query_equals_its_batch_answer_after_every_epoch() {
    let mut changes = 0;
    for seed in seeds() {
        for timezone in [chrono_tz::Asia::Shanghai, chrono_tz::America::New_York] {
            println!("seed {seed}, {timezone}: run it alone with TAGFLOW_ORACLE_SEED={seed}");
            let mut run = Run::of_queries(seed, timezone, queries::ALL);
            run.check();
            changes += run.saved_changes();
        }
    }
    // A run is short: one alone may have none.
    assert!(changes > 0 || seeds().len() < 3, "no checkpoint held changes alone");
}

#[test]
fn every_query_equals_its_batch_answer_though_its_state_has_no_room_in_memory() {
    for seed in seeds().into_iter().take(1) {
        println!("little room, seed {seed}: run it alone with TAGFLOW_ORACLE_SEED={seed}");
        let mut run = Run::of_queries(seed, chrono_tz::Asia::Shanghai, queries::ALL).with_little_room();
        run.check();
        assert!(run.spilled() > 10_000, "{}", run.spilled());
    }
}

#[test]
fn streams_without_resent_records_equal_their_view() {
    let resent: Vec<_> = queries::ALL.iter().copied().filter(|(name, _)| name.starts_with("resent_")).collect();
    for seed in 0..5 {
        println!("resent records, seed {seed}");
        Run::of_queries(seed, chrono_tz::Asia::Shanghai, &resent).check();
    }
    // Enough for keys to be forgotten.
    for seed in 0..2 {
        println!("many resent records, seed {seed}");
        Run::of_queries(seed, chrono_tz::Asia::Shanghai, &resent).with_rows(1_200).check();
    }
}

#[test]
fn every_sample_tag_equals_its_batch_answer_after_every_epoch() {
    for seed in seeds() {
        println!("sample tags, seed {seed}: run it alone with TAGFLOW_ORACLE_SEED={seed}");
        Run::of_sample(seed).check();
    }
}

#[test]
fn every_tiled_query_equals_its_batch_answer_after_every_epoch() {
    for seed in seeds() {
        for timezone in [chrono_tz::Asia::Shanghai, chrono_tz::America::New_York] {
            println!("tiles, seed {seed}, {timezone}: run it alone with TAGFLOW_ORACLE_SEED={seed}");
            let mut run = Run::of_queries(seed, timezone, tiled::TILED);
            assert_eq!(run.tags_with(|kind| matches!(kind, NodeKind::Tiles(_))), tiled::TILED.len());
            run.check();
        }
    }
}
