//! Several answers to one request (`n`): as many generations, whose objects travel together.

use super::content::refused;
use crate::api::Object;
use crate::server::error::ApiError;
use crate::server::run::Outcome;
use crate::server::stream::Objects;
use futures_util::stream::{self, StreamExt};
use serde_json::Value;

/// Most answers to one request.
const MAX_CHOICES: usize = 128;

/// How many answers are wanted for each of `n_prompts`.
///
/// # Errors
/// 400 for none, or for more than 128 in all.
pub fn checked(n: Option<i64>, n_prompts: usize) -> Result<usize, ApiError> {
    let wanted = usize::try_from(n.unwrap_or(1)).unwrap_or(0);
    if wanted == 0 || wanted.saturating_mul(n_prompts) > MAX_CHOICES {
        return Err(refused(&format!(
            "n must be between 1 and {MAX_CHOICES}, all prompts of a request together"
        )));
    }
    Ok(wanted)
}

/// The options of the answer with this index: a seed gives each its own.
pub fn options_of(options: &Object, index: usize) -> Object {
    let mut options = options.clone();
    if let Some(seed) = options.get("seed").and_then(Value::as_i64) {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        options.insert("seed".into(), seed.wrapping_add(index).into());
    }
    options
}

/// A generation's objects, or a reply that needed none as the only one.
pub fn objects<T: Send + Sync + 'static>(outcome: Outcome<T>) -> Objects<T> {
    match outcome {
        Outcome::Stream(objects) => objects,
        Outcome::Whole(reply) => Box::pin(stream::iter([Ok(reply)])),
    }
}

/// The objects of all answers as they come, each with the index of its answer.
pub fn merged<T: Send + Sync + 'static>(choices: Vec<Objects<T>>) -> Objects<(usize, T)> {
    let numbered = choices
        .into_iter()
        .enumerate()
        .map(|(index, objects)| objects.map(move |object| Ok((index, object?))));
    Box::pin(stream::select_all(numbered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_number_of_choices_is_bounded() {
        assert_eq!(checked(None, 1), Ok(1));
        assert_eq!(checked(Some(64), 2), Ok(64));
        for (n, n_prompts) in [(0, 1), (-1, 1), (129, 1), (65, 2), (i64::MAX, 2)] {
            assert!(checked(Some(n), n_prompts).is_err(), "{n} of {n_prompts}");
        }
    }

    #[test]
    fn each_choice_has_its_own_seed() {
        let options = Object::from_iter([("seed".to_owned(), json!(i64::MAX))]);
        assert_eq!(options_of(&options, 0), options);
        assert_eq!(options_of(&options, 1)["seed"], json!(i64::MIN));
        assert_eq!(options_of(&Object::new(), 3), Object::new());
    }

    #[tokio::test]
    async fn objects_keep_their_order_within_a_choice() {
        let one =
            |items: Vec<u32>| -> Objects<u32> { Box::pin(stream::iter(items.into_iter().map(Ok))) };
        let all: Vec<_> = merged(vec![one(vec![1, 2]), one(vec![3, 4])])
            .map(Result::unwrap)
            .collect()
            .await;
        for (index, expected) in [(0, [1, 2]), (1, [3, 4])] {
            let found: Vec<u32> = all
                .iter()
                .filter_map(|&(i, n)| (i == index).then_some(n))
                .collect();
            assert_eq!(found, expected);
        }
    }
}
