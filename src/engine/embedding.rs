//! The thread of a model that embeds: take requests, put texts side by side into steps, answer.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Error;
use super::inbox::Inbox;
use super::sequence::Ticket;
use super::worker::guarded;
use crate::model::Embedder;

/// The texts of one request and the vectors so far, both in order.
#[derive(Debug)]
pub struct Texts {
    texts: Vec<Vec<u32>>,
    vectors: Vec<Vec<f32>>,
    /// Whether a vector holds what is no number.
    is_damaged: bool,
    reply: oneshot::Sender<Result<Vec<Vec<f32>>, Error>>,
    _ticket: Ticket,
}

/// Where the vectors of a request arrive.
pub type Reply = oneshot::Receiver<Result<Vec<Vec<f32>>, Error>>;

impl Texts {
    /// A request, and where it is answered. Dropping the reply cancels it.
    pub fn new(texts: Vec<Vec<u32>>, ticket: Ticket) -> (Texts, Reply) {
        let (reply, receiver) = oneshot::channel();
        let texts = Texts {
            vectors: Vec::with_capacity(texts.len()),
            texts,
            is_damaged: false,
            reply,
            _ticket: ticket,
        };
        (texts, receiver)
    }

    /// The texts without a vector.
    fn rest(&self) -> impl Iterator<Item = &[u32]> {
        self.texts[self.vectors.len()..].iter().map(Vec::as_slice)
    }

    fn push(&mut self, vector: Vec<f32>) {
        self.is_damaged |= vector.iter().any(|x| !x.is_finite());
        self.vectors.push(vector);
    }

    fn is_complete(&self) -> bool {
        self.vectors.len() == self.texts.len()
    }

    /// Answers; a caller that is gone does not mind.
    fn finish(self, error: Option<Error>) {
        let _ = self.reply.send(match error {
            None => Ok(self.vectors),
            Some(error) => Err(error),
        });
    }
}

/// Everything that one loaded model owns.
pub struct EmbeddingWorker {
    embedder: Embedder,
    inbox: Arc<Inbox<Texts>>,
    /// In the order of their arrival.
    requests: VecDeque<Texts>,
}

impl EmbeddingWorker {
    /// A worker without requests.
    pub fn new(embedder: Embedder, inbox: Arc<Inbox<Texts>>) -> EmbeddingWorker {
        EmbeddingWorker {
            embedder,
            inbox,
            requests: VecDeque::new(),
        }
    }

    /// Serves until the inbox is closed, the device fails, or something panics; then fails what
    /// is left.
    pub fn run(mut self) {
        let ending = guarded(|| {
            loop {
                if let Err(error) = self.turn() {
                    return error;
                }
            }
        });
        self.inbox.close(ending.clone());
        let left = self.requests.drain(..).chain(self.inbox.left_over());
        left.for_each(|request| request.finish(Some(ending.clone())));
    }

    /// Takes arrivals, waiting for one if there is nothing to do, and runs one step.
    fn turn(&mut self) -> Result<(), Error> {
        let arrivals = self.inbox.take(self.requests.is_empty())?;
        self.requests.extend(arrivals);
        self.requests.retain(|request| !request.reply.is_closed());
        self.step()?;
        self.answer();
        Ok(())
    }

    /// Embeds the next texts, of several requests where they fit.
    fn step(&mut self) -> Result<(), Error> {
        let all = || self.requests.iter().flat_map(Texts::rest);
        let n = self.embedder.n_fitting(all());
        let texts: Vec<&[u32]> = all().take(n).collect();
        if texts.is_empty() {
            return Ok(());
        }
        let vectors = self.embedder.embed_raw(&texts)?;
        let mut requests = self.requests.iter_mut().filter(|r| !r.is_complete());
        let mut request = requests.next();
        for vector in vectors {
            while request.as_ref().is_some_and(|r| r.is_complete()) {
                request = requests.next();
            }
            let request = request.as_mut().expect("a request for each vector");
            request.push(vector);
        }
        Ok(())
    }

    /// Answers the requests that are complete, and those that cannot be.
    fn answer(&mut self) {
        for _ in 0..self.requests.len() {
            let request = self.requests.pop_front().expect("counted");
            match (request.is_damaged, request.is_complete()) {
                (true, _) => request.finish(Some(Error::InvalidEmbedding)),
                (false, true) => request.finish(None),
                (false, false) => self.requests.push_back(request),
            }
        }
    }
}
