//! Vidente: a streaming forecasting daemon for sensors that publish over MQTT.

pub mod admin;
pub mod app;
pub mod catalog;
pub mod cli;
pub mod command;
pub mod config;
pub mod demo;
pub mod encode;
pub mod engine_thread;
pub mod ingest;
pub mod message;
pub mod metrics;
pub mod mqtt;
pub mod outqueue;
pub mod payload;
pub mod ready;
pub mod record;
pub mod recorder;
pub mod restore;
pub mod store;
pub mod supervise;
pub mod table;
pub mod topic;
pub mod trainer;
pub mod training;
