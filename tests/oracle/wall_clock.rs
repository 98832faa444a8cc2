//! What clock comparisons mean, computed with chrono alone: the oracle plans with the project's own casts between wall
//! time and instants, so that it cannot tell when those are wrong.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMillisecondType};
use chrono::{DateTime, Datelike, Days, Duration, NaiveDateTime, TimeZone, Timelike};
use chrono_tz::Tz;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tagflow::operator::graph::Graph;
use tagflow::plan::compile::{KeyRequirement, compile};
use tagflow::plan::session::{optimise, session_state};

use crate::events;

/// Of an event's wall time, the instant at which it arrived, and the clock.
type Visible = fn(NaiveDateTime, DateTime<Tz>, DateTime<Tz>) -> bool;

/// The instant of a wall time: the earlier of two, and read with the offset before the gap where there is none.
fn instant(time: NaiveDateTime, zone: Tz) -> DateTime<Tz> {
    match zone.from_local_datetime(&time).earliest() {
        Some(instant) => instant,
        None => zone.from_local_datetime(&(time - Duration::hours(3))).earliest().unwrap() + Duration::hours(3),
    }
}

const CONDITIONS: [(&str, Visible); 12] = [
    ("order_time >= NOW() - INTERVAL '7' DAY", |time, _, now| {
        instant(time, now.timezone()) >= now - Duration::hours(168)
    }),
    ("order_time > NOW()", |time, _, now| instant(time, now.timezone()) > now),
    ("order_time >= CURRENT_DATE - INTERVAL '30' DAY", |time, _, now| {
        time >= (now.date_naive() - Days::new(30)).and_hms_opt(0, 0, 0).unwrap()
    }),
    ("order_time >= date_trunc('minute', NOW()) - INTERVAL '5' MINUTE", |time, _, now| {
        let minute = now.with_second(0).unwrap().with_nanosecond(0).unwrap();
        instant(time, now.timezone()) >= minute - Duration::minutes(5)
    }),
    ("CAST(order_time AS DATE) = CURRENT_DATE", |time, _, now| time.date() == now.date_naive()),
    ("order_time < date_trunc('hour', NOW()) AND order_time >= date_trunc('day', NOW())", |time, _, now| {
        let hour = now.with_minute(0).unwrap().with_second(0).unwrap().with_nanosecond(0).unwrap();
        let day = now.date_naive().and_hms_opt(0, 0, 0).unwrap();
        let time = instant(time, now.timezone());
        time < hour && time >= instant(day, now.timezone())
    }),
    ("order_time IS NOT NULL AND CAST(_timestamp AS DATE) = CURRENT_DATE", |_, arrived, now| {
        arrived.date_naive() == now.date_naive()
    }),
    ("order_time IS NOT NULL AND _timestamp >= CURRENT_DATE - INTERVAL '2' DAY", |_, arrived, now| {
        arrived >= instant((now.date_naive() - Days::new(2)).and_hms_opt(0, 0, 0).unwrap(), now.timezone())
    }),
    ("order_time IS NOT NULL AND date_trunc('day', _timestamp) = date_trunc('day', NOW())", |_, arrived, now| {
        arrived.date_naive() == now.date_naive()
    }),
    (
        "order_time IS NOT NULL AND date_bin(INTERVAL '1' DAY, _timestamp) >= date_bin(INTERVAL '1' DAY, NOW())",
        |_, arrived, now| arrived.date_naive() >= now.date_naive(),
    ),
    ("order_time IS NOT NULL AND date_part('day', _timestamp) = date_part('day', CURRENT_DATE)", |_, arrived, now| {
        arrived.day() == now.day()
    }),
    ("order_time <= _timestamp AND _timestamp > NOW() - INTERVAL '1' DAY", |time, arrived, now| {
        instant(time, now.timezone()) <= arrived && arrived > now - Duration::hours(24)
    }),
];

#[test]
fn clock_comparisons_mean_wall_time_of_the_project_zone() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let key = KeyRequirement { entity: "user".into(), column: "user_id".into(), data_type: DataType::Int64 };
    for (seed, zone) in
        [chrono_tz::Asia::Shanghai, chrono_tz::America::New_York, chrono_tz::UTC].into_iter().enumerate()
    {
        let catalog = events::catalog(zone);
        let orders = &catalog.streams["orders"];
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
        let mut history = Vec::new();
        // Two days before the clocks are put forward in New York, and on across that.
        let mut now = zone.from_utc_datetime(&"2026-03-06T15:00:00".parse().unwrap());
        for epoch in 0..60 {
            let wall = now.naive_local().and_utc().timestamp_millis();
            let batch = events::batch(orders, 40, wall, epoch * 40, &mut random);
            remember(&batch, zone, &mut history);
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
                for (user, time, arrived) in &history {
                    if !time.is_some_and(|time| visible(time, *arrived, now)) {
                        continue;
                    }
                    *expected.entry(*user).or_insert(0) += 1;
                }
                assert_eq!(*counts, expected, "{condition} at {now}");
            }
            now += Duration::seconds(random.random_range(0..9000));
        }
    }
}

/// User, wall time and arrival.
type Event = (Option<i64>, Option<NaiveDateTime>, DateTime<Tz>);

fn remember(batch: &RecordBatch, zone: Tz, history: &mut Vec<Event>) {
    let users = batch.column_by_name("user_id").unwrap().as_primitive::<Int64Type>();
    let times = batch.column_by_name("order_time").unwrap().as_primitive::<TimestampMillisecondType>();
    let arrivals = batch.column_by_name("_timestamp").unwrap().as_primitive::<TimestampMillisecondType>();
    for row in 0..batch.num_rows() {
        let arrived = zone.timestamp_millis_opt(arrivals.value(row)).unwrap();
        let time = times.is_valid(row).then(|| DateTime::from_timestamp_millis(times.value(row)).unwrap().naive_utc());
        history.push((users.is_valid(row).then(|| users.value(row)), time, arrived));
    }
}
