//! `tagflow produce`: the generated shop, written to the project's Kafka topics; for demos and benchmarks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::catalog::Catalog;
use crate::cli::{OK, ProjectArgs, complain, no_project};
use crate::config::{Config, Connection, GeneratorConfig};
use crate::project;
use crate::source::generator::{Shop, ShopStream};

/// Arguments of `tagflow produce`.
#[derive(Debug, Clone, clap::Args)]
pub struct ProduceArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Live events a second; 0 stops after the history.
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// Events of history.
    #[arg(long, default_value_t = 200_000)]
    history: u64,
    /// Registered users.
    #[arg(long, default_value_t = 20_000)]
    users: u64,
    /// The same seed gives the same events.
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

/// Produces until interrupted, or to the end of the history.
pub fn run(args: &ProduceArgs) -> u8 {
    let loaded = project::load(&args.project.project, args.project.profile.as_deref());
    let Some(project) = loaded.project else { return complain(no_project(&args.project.project)) };
    let config = GeneratorConfig {
        rate: args.rate,
        seed: args.seed,
        users: args.users,
        history_days: 45,
        history_events: args.history,
    };
    let stop = super::run::shutdown_flag();
    match produce(&project.config, &project.catalog, &config, &stop) {
        Ok(()) => OK,
        Err(error) => complain(error),
    }
}

/// Writes history, then live events at the rate, to the topics of the streams that the shop has.
pub fn produce(
    config: &Config,
    catalog: &Catalog,
    generator: &GeneratorConfig,
    stop: &AtomicBool,
) -> Result<(), KafkaError> {
    let now = || chrono::Utc::now().timestamp_millis();
    let shop = Shop::new(generator, now());
    let mut writers = Vec::new();
    for stream in catalog.streams.values() {
        let name = stream.topic.rsplit('.').next().unwrap_or(&stream.topic);
        let Some(Connection::Kafka { brokers, properties, .. }) = config.connections.get(&stream.connection) else {
            continue;
        };
        let Some(kind) = ShopStream::named(name) else { continue };
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", brokers).set("linger.ms", "20").set("compression.type", "lz4");
        client.set("enable.idempotence", "true");
        for (key, value) in properties {
            client.set(key, value.expose());
        }
        let producer: ThreadedProducer<DefaultProducerContext> = client.create()?;
        writers.push((kind, stream.topic.clone(), producer, 0_i64));
    }
    let mut bytes = Vec::new();
    loop {
        let mut sent = 0;
        for (kind, topic, producer, next) in &mut writers {
            let available = if generator.rate == 0 { shop.history_len(*kind) } else { shop.available(*kind, now()) };
            while *next < available && !stop.load(Ordering::SeqCst) {
                bytes.clear();
                shop.write(*kind, *next, &mut bytes);
                let record = BaseRecord::<(), [u8]>::to(topic).payload(&bytes).timestamp(shop.arrival_ms(*kind, *next));
                match producer.send(record) {
                    Ok(()) => {
                        *next += 1;
                        sent += 1;
                    }
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        producer.flush(Duration::from_millis(200)).or_else(|error| {
                            match error.rdkafka_error_code() {
                                Some(RDKafkaErrorCode::OperationTimedOut) => Ok(()),
                                _ => Err(error),
                            }
                        })?;
                    }
                    Err((error, _)) => return Err(error),
                }
            }
        }
        if stop.load(Ordering::SeqCst) || generator.rate == 0 && sent == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for (_, _, producer, _) in &writers {
        producer.flush(Duration::from_secs(30))?;
    }
    Ok(())
}
