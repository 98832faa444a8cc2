use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("city", DataType::Utf8, true),
        Field::new("user_id", DataType::Int64, true),
        Field::new("visits", DataType::Int64, true),
    ]))
}

/// (user, city, visits, weight)
type Line<'a> = (Option<i64>, Option<&'a str>, Option<i64>, i64);
type OwnedLine = (Option<i64>, Option<String>, Option<i64>, i64);

fn delta(lines: &[Line<'_>]) -> Delta {
    let batch = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(StringArray::from_iter(lines.iter().map(|line| line.1))),
            Arc::new(Int64Array::from_iter(lines.iter().map(|line| line.0))),
            Arc::new(Int64Array::from_iter(lines.iter().map(|line| line.2))),
        ],
    )
    .unwrap();
    Delta::weighted(batch, lines.iter().map(|line| line.3).collect())
}

fn pending() -> PendingChanges {
    PendingChanges::new("visits_by_city", schema(), &[1]).unwrap()
}

fn users(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

#[test]
fn insert_before_retract_leaves_the_new_row() {
    let mut pending = pending();
    pending.add_epoch(&[delta(&[(Some(7), Some("杭州"), Some(2), 1), (Some(7), Some("杭州"), Some(1), -1)])]).unwrap();
    let net = pending.drain().unwrap();
    assert_eq!((users(&net.upserts), users(&net.deletes), net.rows_delta), (vec![7], vec![], 0));
    assert_eq!(net.upserts.schema().field(0).name(), "user_id");
    assert_eq!(net.upserts.schema().field(1).name(), "city");
    assert_eq!(net.upserts.column(2).as_primitive::<Int64Type>().value(0), 2);
}

#[test]
fn change_and_change_back_over_epochs_is_no_write() {
    let mut pending = pending();
    pending.add_epoch(&[delta(&[(Some(1), None, Some(5), -1), (Some(1), None, Some(6), 1)])]).unwrap();
    pending.add_epoch(&[delta(&[(Some(1), None, Some(6), -1)]), delta(&[(Some(1), None, Some(5), 1)])]).unwrap();
    pending.add_epoch(&[delta(&[(Some(2), None, Some(6), 1)])]).unwrap();
    pending.add_epoch(&[delta(&[(Some(2), None, Some(6), -1)])]).unwrap();
    let net = pending.drain().unwrap();
    assert_eq!((net.upserts.num_rows(), net.deletes.num_rows(), net.rows_delta), (0, 0, 0));
    assert!(pending.is_empty());
}

#[test]
fn first_old_and_last_new_of_several_epochs_decide() {
    let mut pending = pending();
    pending.add_epoch(&[delta(&[(Some(1), None, Some(5), -1), (Some(1), None, Some(6), 1)])]).unwrap();
    pending.add_epoch(&[delta(&[(Some(1), None, Some(6), -1)])]).unwrap();
    pending.add_epoch(&[delta(&[(Some(3), Some("long text that needs a slot"), Some(6), 1)])]).unwrap();
    assert_eq!(pending.rows_delta(), 0);
    let net = pending.drain().unwrap();
    assert_eq!((users(&net.upserts), users(&net.deletes), net.rows_delta), (vec![3], vec![1], 0));
}

#[test]
fn rows_with_a_null_key_are_left_out_and_counted() {
    let mut pending = pending();
    pending
        .add_epoch(&[delta(&[(None, None, Some(5), 1), (Some(1), None, None, 1), (None, None, Some(4), -1)])])
        .unwrap();
    assert_eq!(pending.null_keys(), 1);
    assert_eq!(users(&pending.drain().unwrap().upserts), vec![1]);
}

#[test]
fn weights_of_several_rows_that_cancel_are_accepted() {
    let mut pending = pending();
    pending
        .add_epoch(&[delta(&[
            (Some(1), Some("a"), Some(1), 3),
            (Some(1), Some("b"), Some(1), 1),
            (Some(1), Some("a"), Some(1), -3),
        ])])
        .unwrap();
    let net = pending.drain().unwrap();
    assert_eq!(net.upserts.column(1).as_string::<i32>().value(0), "b");
}

#[test]
fn two_live_rows_of_a_key_are_an_error_naming_tag_and_key() {
    let error = pending()
        .add_epoch(&[delta(&[(Some(9), Some("a"), Some(1), 1), (Some(9), Some("b"), Some(1), 1)])])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "tag \"visits_by_city\": key (user_id = 9) has 2 rows after the epoch, its table can hold one"
    );
    let mut twice = pending();
    twice.add_epoch(&[delta(&[(Some(9), Some("a"), Some(1), 1)])]).unwrap();
    let error = twice.add_epoch(&[delta(&[(Some(9), Some("a"), Some(1), 1)])]).unwrap_err();
    assert!(matches!(error, CollapseError::ManyRows { rows: 2, .. }), "{error}");
}

#[test]
fn retraction_of_an_unknown_row_is_an_error() {
    let mut pending = pending();
    pending.add_epoch(&[delta(&[(Some(9), Some("a"), Some(1), 1)])]).unwrap();
    let error = pending.add_epoch(&[delta(&[(Some(9), Some("b"), Some(1), -1)])]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tag \"visits_by_city\": a row of key (user_id = 9) was retracted that the tag does not hold"
    );
}

#[test]
fn segment_without_value_columns_collapses_to_membership() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("user_id", DataType::Int64, true)]));
    let members = |lines: &[(i64, i64)]| {
        let users = Int64Array::from_iter_values(lines.iter().map(|line| line.0));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(users)]).unwrap();
        Delta::weighted(batch, lines.iter().map(|line| line.1).collect())
    };
    let mut pending = PendingChanges::new("vip", schema.clone(), &[0]).unwrap();
    pending.add_epoch(&[members(&[(3, 1), (1, 1), (2, -1), (4, -1)])]).unwrap();
    pending.add_epoch(&[members(&[(4, 1)])]).unwrap();
    let net = pending.drain().unwrap();
    assert_eq!((users(&net.upserts), users(&net.deletes), net.rows_delta), (vec![1, 3], vec![2], 1));
}

/// Random histories against a map of rows: what is drained, applied to the table of the last drain, is the relation.
#[test]
fn drained_changes_turn_the_old_table_into_the_new_relation() {
    for seed in 0..200u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let keys = rng.random_range(1..12);
        let mut relation: BTreeMap<i64, (Option<String>, Option<i64>)> = BTreeMap::new();
        let mut table = relation.clone();
        let mut pending = pending();
        for _ in 0..40 {
            let mut lines: Vec<OwnedLine> = Vec::new();
            for _ in 0..rng.random_range(0..60) {
                let key = rng.random_range(0..keys);
                let row = (
                    rng.random_bool(0.8).then(|| "x".repeat(rng.random_range(0..40))),
                    rng.random_bool(0.8).then(|| rng.random_range(0..3)),
                );
                let old = match rng.random_bool(0.7) {
                    true => relation.insert(key, row.clone()),
                    false => relation.remove(&key),
                };
                lines.extend(old.map(|old| (Some(key), old.0, old.1, -1)));
                lines.extend(relation.get(&key).map(|new| (Some(key), new.0.clone(), new.1, 1)));
            }
            for index in (1..lines.len()).rev() {
                lines.swap(index, rng.random_range(0..=index));
            }
            let cut = rng.random_range(0..=lines.len());
            let lines: Vec<Line<'_>> = lines.iter().map(|line| (line.0, line.1.as_deref(), line.2, line.3)).collect();
            pending.add_epoch(&[delta(&lines[..cut]), delta(&lines[cut..])]).unwrap();
            if rng.random_bool(0.3) {
                let net = pending.drain().unwrap();
                let before = table.len() as i64;
                let (upserts, deletes) = (users(&net.upserts), users(&net.deletes));
                assert!(upserts.is_sorted() && deletes.is_sorted(), "seed {seed}");
                for key in deletes {
                    assert!(table.remove(&key).is_some(), "seed {seed}: key {key} was not there to delete");
                }
                let (cities, visits) = (net.upserts.column(1).as_string::<i32>(), net.upserts.column(2));
                let visits = visits.as_primitive::<Int64Type>();
                for (row, key) in upserts.into_iter().enumerate() {
                    let new = (
                        cities.is_valid(row).then(|| cities.value(row).to_string()),
                        visits.is_valid(row).then(|| visits.value(row)),
                    );
                    assert_ne!(table.insert(key, new.clone()), Some(new), "seed {seed}: unchanged row written");
                }
                assert_eq!(table, relation, "seed {seed}");
                assert_eq!(net.rows_delta, table.len() as i64 - before, "seed {seed}");
            }
        }
    }
}

#[test]
fn values_that_grow_over_many_epochs_are_compacted() {
    let mut pending = pending();
    let mut old: Option<String> = None;
    for length in 1..3000 {
        let new = "x".repeat(length);
        let mut lines: Vec<Line<'_>> = vec![(Some(1), Some(&new), Some(1), 1)];
        lines.extend(old.as_deref().map(|old| (Some(1), Some(old), Some(1), -1)));
        pending.add_epoch(&[delta(&lines)]).unwrap();
        old = Some(new);
    }
    assert!(pending.bytes() < 4 * COMPACT_ABOVE_BYTES, "{} bytes held", pending.bytes());
    assert_eq!(pending.drain().unwrap().upserts.column(1).as_string::<i32>().value(0).len(), 2999);
}
