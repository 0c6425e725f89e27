//! The way into a model's thread: new requests, and a bell for everything else.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Error;

/// A closable queue with one consumer. Its length is bounded by the callers' tickets.
#[derive(Debug)]
pub struct Inbox<T> {
    state: Mutex<State<T>>,
    bell: Condvar,
}

#[derive(Debug)]
struct State<T> {
    arrivals: VecDeque<T>,
    rung: bool,
    closed: Option<Error>,
}

impl<T> Inbox<T> {
    /// Open and empty.
    pub fn new() -> Inbox<T> {
        Inbox {
            state: Mutex::new(State {
                arrivals: VecDeque::new(),
                rung: false,
                closed: None,
            }),
            bell: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an arrival.
    ///
    /// # Errors
    /// Why the inbox was closed.
    pub fn push(&self, arrival: T) -> Result<(), Error> {
        let mut state = self.lock();
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        state.arrivals.push_back(arrival);
        self.bell.notify_one();
        Ok(())
    }

    /// Wakes the consumer: a client read or went away.
    pub fn ring(&self) {
        self.lock().rung = true;
        self.bell.notify_one();
    }

    /// Refuses arrivals from now on, for the first reason given.
    pub fn close(&self, reason: Error) {
        self.lock().closed.get_or_insert(reason);
        self.bell.notify_one();
    }

    /// Why it was closed.
    pub fn closed(&self) -> Option<Error> {
        self.lock().closed.clone()
    }

    /// Takes all arrivals; waits for one, or for the bell, if `wait`.
    ///
    /// # Errors
    /// Why the inbox was closed.
    pub fn take(&self, wait: bool) -> Result<VecDeque<T>, Error> {
        let mut state = self.lock();
        while wait && state.closed.is_none() && !state.rung && state.arrivals.is_empty() {
            state = self
                .bell
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.rung = false;
        match &state.closed {
            Some(error) => Err(error.clone()),
            None => Ok(std::mem::take(&mut state.arrivals)),
        }
    }

    /// What arrived before the inbox was closed and was never taken.
    pub fn left_over(&self) -> VecDeque<T> {
        std::mem::take(&mut self.lock().arrivals)
    }
}
