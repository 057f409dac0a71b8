//! Where a window at the end of the prompt is counted from.

use cokv_core::{ConfigError, ConfigTable, LayerView, PolicyError, WindowSum};
use serde::{Deserialize, Serialize};

/// What stands last in a prompt is not always what was asked: a chat template closes the user's text with tokens of its
/// own (`<|im_end|>`, `<|im_start|>assistant`), which may fill a small window to the brim. Their own queries do not
/// observe: a window of 8 with them scored worse than one without on both of our small models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowFrom {
    /// From the last token, whatever it is: as published.
    #[default]
    PromptEnd,
    /// From the last token of the user's text. The chat template's tokens behind it are kept besides, and count in the
    /// budget as everything does.
    UserText,
}

impl WindowFrom {
    /// The window's queries, of which attention is to be summed. Where the user's text is empty, the tail's queries are all
    /// that there is.
    pub fn sum(self, window: usize, tail: usize) -> WindowSum {
        let tail = match self {
            WindowFrom::PromptEnd => 0,
            WindowFrom::UserText => tail,
        };
        WindowSum { rows: window, tail }
    }

    /// Tokens at the prompt's end that are always kept: the window, and the `tail` of the chat template where that is
    /// beside it.
    pub fn reach(self, window: usize, tail: usize) -> usize {
        self.sum(window, tail).reach()
    }

    /// Attention of the window's queries of one query head, `[rows, prompt_len]`, the youngest last: for whoever cannot do with
    /// their sum.
    pub fn rows<'a>(self, layer: &LayerView<'a>, query_head: usize, window: usize) -> Result<&'a [f32], PolicyError> {
        let queries = self.sum(window, layer.frame.tail);
        Ok(queries.among(layer.last_rows(query_head, queries.reach())?, layer.prompt_len))
    }

    /// Attention of the last query, mean over all query heads: `[prompt_len]`.
    pub fn mean_last_row(self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let mut mean = vec![0.0; layer.prompt_len];
        for query_head in 0..layer.layout.query_heads {
            let row = self.rows(layer, query_head, 1)?;
            mean.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight / layer.layout.query_heads as f32);
        }
        Ok(mean)
    }
}

/// Refuses a window of which nothing can be learnt.
pub fn check_window(settings: &ConfigTable<'_>, method: &str, window: usize) -> Result<(), ConfigError> {
    match window {
        0 => Err(settings
            .error(format!("{method} needs a window of at least 1: its last queries are what scores the prompt"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::Frame;

    use crate::compressors::closed_form::{LAYOUT, Prompt, method};

    /// Prompts of 16 tokens, of which the last 3 are a chat template's.
    fn prompt() -> Prompt {
        Prompt::new(16).with_tail(3)
    }

    #[test]
    fn queries_of_the_users_text_score_what_lies_before_them() {
        let prompt = prompt();
        let view = prompt.view();
        let row = |head: usize, row: usize| &view.window_attention[(head * 16 + row) * 16..][..16];
        for (compressor, observed) in [
            ("{ name = 'snapkv', window = 4, pooling = 'none', window_from = 'user-text' }", 9..13),
            ("{ name = 'snapkv', window = 4, pooling = 'none', window_from = 'prompt-end' }", 12..16),
        ] {
            let method = method(compressor);
            let scores = prompt.score(&method);
            let protected = method.protected(Frame::with_tail(3));
            assert_eq!(protected.candidates(16), 0..observed.start, "{compressor}");
            for kv_head in 0..LAYOUT.kv_heads {
                for token in protected.candidates(16) {
                    let sum = |head: usize| observed.clone().map(|query| row(head, query)[token]).sum::<f32>();
                    let mean = |head: usize| sum(head) / observed.len() as f32;
                    // To the bit: whoever sums adds the oldest row first.
                    let (ours, expected) =
                        (scores[kv_head * 16 + token], (mean(2 * kv_head) + mean(2 * kv_head + 1)) / 2.0);
                    assert_eq!(ours.to_bits(), expected.to_bits(), "{compressor}, head {kv_head}, token {token}");
                }
            }
        }
    }

    #[test]
    fn window_and_tail_are_kept_and_counted() {
        let kept = prompt().kept("{ name = 'snapkv', window = 4, window_from = 'user-text' }", 9);
        assert!(kept.iter().all(|head| head.len() == 9 && head.ends_with(&[9, 10, 11, 12, 13, 14, 15])), "{kept:?}");
        let kept = prompt().kept("{ name = 'tova', window_from = 'user-text' }", 6);
        assert!(kept.iter().all(|head| head.len() == 6 && head.ends_with(&[12, 13, 14, 15])), "{kept:?}");
    }

    #[test]
    fn without_a_tail_the_text_ends_where_the_prompt_does() {
        for name in ["snapkv", "tova"] {
            let [text, end] = ["user-text", "prompt-end"].map(|from| {
                let method = method(&format!("{{ name = '{name}', window_from = '{from}' }}"));
                (
                    Prompt::new(16).score(&method),
                    method.protected(Frame::default()),
                    method.observations(Frame::default()),
                )
            });
            assert_eq!(text, end, "{name}");
        }
    }

    #[test]
    fn a_window_that_a_tail_fills_is_told() {
        let within = |compressor: &str, tail| method(compressor).window_within(Frame::with_tail(tail));
        assert_eq!(within("'tova'", 5), Some(1));
        assert_eq!(within("{ name = 'snapkv', window = 5, window_from = 'prompt-end' }", 5), Some(5));
        assert_eq!(within("{ name = 'snapkv', window = 6, window_from = 'prompt-end' }", 5), None);
        assert_eq!(within("{ name = 'snapkv', window = 5, window_from = 'user-text' }", 5), None);
        assert_eq!(within("{ name = 'snapkv', window = 5, window_from = 'prompt-end' }", 0), None);
        assert_eq!(within("'knorm'", 5), None, "it has no window");
    }
}
