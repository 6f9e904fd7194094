//! Vidente: a streaming forecasting daemon for sensors that publish over MQTT.

pub mod admin;
mod answers;
pub mod app;
pub mod catalog;
mod chance;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod demo;
pub mod encode;
pub mod engine_thread;
pub mod feed;
pub mod ingest;
pub mod message;
pub mod metrics;
pub mod mqtt;
pub mod outqueue;
mod path;
pub mod payload;
pub mod ready;
pub mod record;
pub mod recorder;
pub mod restore;
mod retry;
pub mod secret;
#[cfg(test)]
mod simulation;
pub mod spool;
pub mod store;
pub mod supervise;
pub mod table;
mod tls;
pub mod topic;
pub mod trainer;
pub mod training;
mod world;
