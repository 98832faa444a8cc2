//! What clock comparisons mean, computed with chrono alone: the oracle plans with the project's own casts between wall
//! time and instants, so that it cannot tell when those are wrong.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMillisecondType};
use chrono::{DateTime, Days, Duration, NaiveDateTime, TimeZone, Timelike};
use chrono_tz::Tz;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tagflow::operator::graph::Graph;
use tagflow::plan::compile::{KeyRequirement, compile};
use tagflow::plan::session::{optimise, session_state};

use crate::events;

type Visible = fn(NaiveDateTime, DateTime<Tz>) -> bool;

/// The instant of a wall time: the earlier of two, and read with the offset before the gap where there is none.
fn instant(time: NaiveDateTime, zone: Tz) -> DateTime<Tz> {
    match zone.from_local_datetime(&time).earliest() {
        Some(instant) => instant,
        None => zone.from_local_datetime(&(time - Duration::hours(3))).earliest().unwrap() + Duration::hours(3),
    }
}

const CONDITIONS: [(&str, Visible); 6] = [
    ("order_time >= NOW() - INTERVAL '7' DAY", |time, now| instant(time, now.timezone()) >= now - Duration::hours(168)),
    ("order_time > NOW()", |time, now| instant(time, now.timezone()) > now),
    ("order_time >= CURRENT_DATE - INTERVAL '30' DAY", |time, now| {
        time >= (now.date_naive() - Days::new(30)).and_hms_opt(0, 0, 0).unwrap()
    }),
    ("order_time >= date_trunc('minute', NOW()) - INTERVAL '5' MINUTE", |time, now| {
        let minute = now.with_second(0).unwrap().with_nanosecond(0).unwrap();
        instant(time, now.timezone()) >= minute - Duration::minutes(5)
    }),
    ("CAST(order_time AS DATE) = CURRENT_DATE", |time, now| time.date() == now.date_naive()),
    ("order_time < date_trunc('hour', NOW()) AND order_time >= date_trunc('day', NOW())", |time, now| {
        let hour = now.with_minute(0).unwrap().with_second(0).unwrap().with_nanosecond(0).unwrap();
        let day = now.date_naive().and_hms_opt(0, 0, 0).unwrap();
        let time = instant(time, now.timezone());
        time < hour && time >= instant(day, now.timezone())
    }),
];

#[test]
fn clock_comparisons_mean_wall_time_of_the_project_zone() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let catalog = events::catalog();
    let orders = &catalog.streams["orders"];
    let key = KeyRequirement { entity: "user".into(), column: "user_id".into(), data_type: DataType::Int64 };
    for (seed, zone) in
        [chrono_tz::Asia::Shanghai, chrono_tz::America::New_York, chrono_tz::UTC].into_iter().enumerate()
    {
        let mut random = StdRng::seed_from_u64(seed as u64);
        let state = session_state(&catalog, zone).unwrap();
        let mut graph = Graph::new(2, zone);
        for (index, (condition, _)) in CONDITIONS.iter().enumerate() {
            let sql = format!("SELECT user_id, COUNT(*) AS n FROM orders WHERE {condition} GROUP BY user_id");
            let logical = runtime.block_on(state.create_logical_plan(&sql)).and_then(|plan| optimise(&state, plan));
            let plan = compile(&logical.unwrap(), &catalog, zone, &key).unwrap();
            graph.add_tag(&index.to_string(), &Arc::new(plan)).unwrap();
        }
        let mut counts = vec![BTreeMap::<Option<i64>, i64>::new(); CONDITIONS.len()];
        let mut history: Vec<(Option<i64>, Option<NaiveDateTime>)> = Vec::new();
        // Two days before the clocks are put forward in New York, and on across that.
        let mut now = zone.from_utc_datetime(&"2026-03-06T15:00:00".parse().unwrap());
        for epoch in 0..60 {
            let wall = now.naive_local().and_utc().timestamp_millis();
            let batch = events::batch(orders, 40, wall, epoch * 40, &mut random);
            remember(&batch, &mut history);
            let events = HashMap::from([("orders".to_string(), batch)]);
            for (index, delta) in graph.step(&events, now.timestamp_nanos_opt().unwrap()) {
                let delta = delta.unwrap();
                let users = delta.batch.column(0).as_primitive::<Int64Type>();
                let numbers = delta.batch.column(1).as_primitive::<Int64Type>();
                let counts = &mut counts[index.parse::<usize>().unwrap()];
                for row in 0..delta.num_rows() {
                    let user = users.is_valid(row).then(|| users.value(row));
                    *counts.entry(user).or_default() += delta.weight(row) * numbers.value(row);
                }
            }
            for ((condition, visible), counts) in CONDITIONS.iter().zip(&mut counts) {
                counts.retain(|_, count| *count != 0);
                let mut expected = BTreeMap::new();
                for (user, _) in history.iter().filter(|(_, time)| time.is_some_and(|time| visible(time, now))) {
                    *expected.entry(*user).or_insert(0) += 1;
                }
                assert_eq!(*counts, expected, "{condition} at {now}");
            }
            now += Duration::seconds(random.random_range(0..9000));
        }
    }
}

fn remember(batch: &RecordBatch, history: &mut Vec<(Option<i64>, Option<NaiveDateTime>)>) {
    let users = batch.column_by_name("user_id").unwrap().as_primitive::<Int64Type>();
    let times = batch.column_by_name("order_time").unwrap().as_primitive::<TimestampMillisecondType>();
    for row in 0..batch.num_rows() {
        let time = times.is_valid(row).then(|| DateTime::from_timestamp_millis(times.value(row)).unwrap().naive_utc());
        history.push((users.is_valid(row).then(|| users.value(row)), time));
    }
}
