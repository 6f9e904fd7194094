//! What the inlet is subscribed to, what it asked for, and what the broker said to it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info};

use super::wire::Client;

/// How long after a refused subscription it is tried again; someone may have changed the rights.
const RESUBSCRIBE: Duration = Duration::from_secs(30);
/// How long the broker may take to answer a subscription.
const ANSWER: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Subscriptions {
    wanted: BTreeSet<String>,
    /// No longer wanted, and not yet left: once the broker has answered on all that is wanted, so that nothing
    /// comes between.
    unwanted: BTreeSet<String>,
    /// What the broker has been told to let go of on this connection, and has not confirmed.
    leaving: VecDeque<String>,
    /// Filters of the requests on this connection that are not answered.
    asked: VecDeque<Vec<String>>,
    refused: BTreeSet<String>,
    qos: u8,
    /// When to ask for all again.
    again: Option<Instant>,
}

impl Subscriptions {
    pub(super) fn new(filters: Vec<String>, qos: u8) -> Subscriptions {
        Subscriptions {
            wanted: filters.into_iter().collect(),
            unwanted: BTreeSet::new(),
            leaving: VecDeque::new(),
            asked: VecDeque::new(),
            refused: BTreeSet::new(),
            qos,
            again: None,
        }
    }

    /// When [`Subscriptions::ask`] is due again, if it is.
    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Asks for all, whatever the broker's session holds.
    pub(super) fn ask(&mut self, client: &impl Client) {
        self.asked.clear();
        let all = self.wanted.iter().cloned().collect();
        self.ask_for(all, client);
    }

    /// The connection is gone, and with it what was asked on it.
    pub(super) fn forget(&mut self) {
        self.asked.clear();
        self.refused.clear();
        self.again = None;
        // The broker's session may hold them still.
        self.unwanted.extend(self.leaving.drain(..).filter(|filter| !self.wanted.contains(filter)));
    }

    /// From here on other filters are wanted. What is wanted before and after is left alone: the broker would
    /// send its retained messages again. Whether all is granted, if that changes without an answer: what was
    /// refused may not be wanted any more.
    pub(super) fn change(&mut self, filters: Vec<String>, client: Option<&impl Client>) -> Option<bool> {
        let before = std::mem::replace(&mut self.wanted, filters.into_iter().collect());
        let added: Vec<String> = self.wanted.difference(&before).cloned().collect();
        self.unwanted.extend(before.difference(&self.wanted).cloned());
        self.unwanted.retain(|filter| !self.wanted.contains(filter));
        let refused = self.refused.len();
        self.refused.retain(|filter| self.wanted.contains(filter));
        let client = client?;
        if !added.is_empty() {
            self.ask_for(added, client);
            return None;
        }
        if !self.asked.is_empty() {
            return None;
        }
        self.leave(client);
        if refused == 0 || !self.refused.is_empty() {
            return None;
        }
        self.again = None;
        Some(true)
    }

    fn leave(&mut self, client: &impl Client) {
        if self.unwanted.is_empty() {
            return;
        }
        if client.unsubscribe(&self.unwanted).is_ok() {
            self.leaving.extend(std::mem::take(&mut self.unwanted));
        } else {
            // What still comes is of no stream and is passed over.
            error!("cannot unsubscribe now; trying again on the next connection");
        }
    }

    /// The broker has let go of a filter.
    pub(super) fn left(&mut self) {
        self.leaving.pop_front();
    }

    fn ask_for(&mut self, filters: Vec<String>, client: &impl Client) {
        // Should no answer come.
        self.again = Some(Instant::now() + ANSWER);
        if client.subscribe(&filters, self.qos).is_ok() {
            self.asked.push_back(filters);
        } else {
            error!("cannot subscribe now, trying again");
        }
    }

    /// Takes in an answer; whether all that is wanted is granted. None of an answer to nothing that was asked.
    pub(super) fn answered(&mut self, answers: &[Result<(), String>], client: &impl Client) -> Option<bool> {
        // One that comes after it was asked again is not told from the other's, which has the same to say.
        let filters = self.asked.pop_front().filter(|filters| filters.len() == answers.len())?;
        let mut granted = Vec::new();
        for (filter, answer) in filters.into_iter().zip(answers) {
            match answer {
                Ok(()) => {
                    self.refused.remove(&filter);
                    granted.push(filter);
                }
                Err(reason) if self.wanted.contains(&filter) => {
                    error!(
                        "the broker refuses the subscription to {filter} ({reason}); let the user of \
                         mqtt.username read it, for instance in the broker's ACL file; trying again in \
                         {RESUBSCRIBE:?}"
                    );
                    self.refused.insert(filter);
                }
                Err(_) => {}
            }
        }
        if self.refused.is_empty() {
            info!("subscribed to {}", granted.join(", "));
        }
        if self.asked.is_empty() {
            self.again = (!self.refused.is_empty()).then(|| Instant::now() + RESUBSCRIBE);
            self.leave(client);
        }
        Some(self.refused.is_empty())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::mqtt::Refused;

    /// Notes what is asked of it.
    #[derive(Default)]
    struct Noted(Mutex<Vec<String>>);

    impl Noted {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl Client for Noted {
        fn ack(&self, _packet_id: u16) -> Result<(), Refused> {
            Ok(())
        }

        fn subscribe(&self, filters: &[String], qos: u8) -> Result<(), Refused> {
            self.0.lock().unwrap().push(format!("+{} {qos}", filters.join(" ")));
            Ok(())
        }

        fn unsubscribe(&self, filters: &BTreeSet<String>) -> Result<(), Refused> {
            self.0.lock().unwrap().extend(filters.iter().map(|filter| format!("-{filter}")));
            Ok(())
        }

        fn try_disconnect(&self) -> Result<(), Refused> {
            Ok(())
        }

        async fn publish(&self, _: String, _: Vec<u8>, _: bool) -> Result<(), Refused> {
            Ok(())
        }

        async fn answer(&self, _: String, _: Vec<u8>, _: Option<Vec<u8>>) -> Result<(), Refused> {
            Ok(())
        }

        async fn disconnect(&self) -> Result<(), Refused> {
            Ok(())
        }
    }

    fn filters(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// mosquitto's ACL file never refuses a subscription, other brokers do.
    #[tokio::test]
    async fn a_refused_subscription_is_tried_again() {
        let (client, mut all) = (Noted::default(), Subscriptions::new(filters(&["b", "a", "b"]), 1));
        all.ask(&client);
        assert_eq!(client.take(), ["+a b 1"]);
        assert!(all.again().is_some(), "no answer may ever come");
        assert_eq!(all.answered(&[Ok(()), Ok(())], &client), Some(true));
        assert!(all.again().is_none());
        all.ask(&client);
        assert_eq!(all.answered(&[Ok(()), Err("NotAuthorized".into())], &client), Some(false));
        assert!(all.again().is_some());
        all.ask(&client);
        assert_eq!(all.answered(&[Ok(()), Ok(())], &client), Some(true));
        assert_eq!(all.answered(&[Ok(())], &client), None, "an answer to nothing");
    }

    #[tokio::test]
    async fn a_change_touches_nothing_that_stays() {
        let (client, mut all) = (Noted::default(), Subscriptions::new(filters(&["a", "b"]), 0));
        all.ask(&client);
        assert_eq!(all.answered(&[Ok(()), Ok(())], &client), Some(true));
        client.take();
        assert_eq!(all.change(filters(&["b", "c"]), Some(&client)), None);
        assert_eq!(client.take(), ["+c 0"], "what goes stays until all that comes is there");
        assert_eq!(all.answered(&[Err("no".into())], &client), Some(false));
        assert_eq!(client.take(), ["-a"], "what is refused may be for long");
        all.left();
        // What was refused does not matter any more.
        assert_eq!(all.change(filters(&["b"]), Some(&client)), Some(true));
        assert_eq!(client.take(), ["-c"]);
        assert!(all.again().is_none());
        all.left();
        assert_eq!(all.change(filters(&["a", "d"]), Some(&client)), None);
        assert_eq!(client.take(), ["+a d 0"]);
        assert_eq!(all.answered(&[Ok(()), Ok(())], &client), Some(true));
        assert_eq!(client.take(), ["-b"]);
        // Without a connection the next one hears of it, and of what the session may still hold.
        all.forget();
        assert_eq!(all.change(filters(&["d"]), None::<&Noted>), None);
        assert!(client.take().is_empty());
        all.ask(&client);
        assert_eq!(client.take(), ["+d 0"]);
        assert_eq!(all.answered(&[Ok(())], &client), Some(true));
        assert_eq!(client.take(), ["-a", "-b"]);
        all.left();
        all.left();
        all.forget();
        all.ask(&client);
        assert_eq!(all.answered(&[Ok(())], &client), Some(true));
        assert_eq!(client.take(), ["+d 0"], "what was let go of is not let go of again");
    }
}
