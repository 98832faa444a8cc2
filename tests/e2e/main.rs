//! End to end, against a real Kafka and a real MariaDB: `make test` starts both and says where they are.

mod avro;
mod checkpoints;
mod daemon;
mod dead_letters;
mod kafka_faults;
mod kafka_source;
mod mariadb;
mod mysql_faults;
mod mysql_sink;
mod mysql_tls;
mod object_store;
mod on_error;
mod proxy;
mod replay;
mod set_aside;
mod shop;
mod standby;
mod state_limit;
mod stopping;
mod tables;
mod topic;
mod windows;
