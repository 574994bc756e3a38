//! Integration tests with the real binary: one file per subcommand or scenario. `support` is the test kit.
//!
//! A test fails with a panic. A test with random input prints its seed.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

mod asking;
mod billing;
mod cluster;
mod cluster_ask;
mod configure;
mod consume_kafka;
mod consume_scale;
mod crash;
mod create;
mod dashboards;
mod decode;
mod decode_again;
mod disk;
mod docs;
mod drain;
mod dump_forms;
mod elastic;
mod errors;
mod event_store;
mod events_crash;
mod fuzz;
mod help;
mod hostile;
mod http;
mod kafka_client;
mod kafka_gaps;
mod kamailio;
mod layout;
mod live;
mod ls;
mod man;
mod mend;
mod merge;
mod number;
mod number_merges;
mod number_plans;
mod own_indices;
mod replay;
mod replay_delivery;
mod replay_kafka;
mod replay_times;
mod same_name;
mod search_clients;
mod serve_events;
mod stored;
mod syslog;
mod tail;
mod tcp_recorded;
mod terminal;
mod trust;
mod verify;
