//! How many tokens of a prompt one pass may read while others wait for their next tokens.

use std::time::Duration;

/// Lengths of chunks, so that few shapes occur.
const CHUNKS: [usize; 5] = [32, 64, 128, 256, 512];

/// Learns from the passes that were run how fast prompts are read. That depends on how much of a prompt stands before: what counts is the
/// last pass.
#[derive(Debug, Default)]
pub struct Pace {
    /// Prompt tokens a second, of the last pass.
    last: f64,
}

impl Pace {
    /// A pass has read so many tokens of a prompt.
    pub fn ran(&mut self, tokens: usize, took: Duration) {
        // What a short chunk says of the speed is mostly the pass's own cost.
        if tokens >= CHUNKS[0] && !took.is_zero() {
            self.last = tokens as f64 / took.as_secs_f64();
        }
    }

    /// Tokens that take no longer than that.
    pub fn chunk(&self, within: Duration) -> usize {
        let tokens = self.last * within.as_secs_f64();
        CHUNKS.into_iter().rev().find(|&chunk| chunk as f64 <= tokens).unwrap_or(CHUNKS[0])
    }

    /// How long so many tokens take; none where nothing was read yet.
    pub fn time_of(&self, tokens: usize) -> Option<Duration> {
        (self.last > 0.0).then(|| Duration::from_secs_f64(tokens as f64 / self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_take_as_long_as_they_may() {
        let mut pace = Pace::default();
        let target = Duration::from_millis(100);
        assert_eq!((pace.chunk(target), pace.time_of(10)), (32, None), "nothing is known yet");
        pace.ran(512, Duration::from_secs(1));
        assert_eq!(pace.chunk(target), 32);
        pace.ran(8, Duration::from_micros(1));
        pace.ran(512, Duration::from_millis(200));
        assert_eq!(pace.chunk(target), 256);
        assert_eq!(pace.time_of(2560), Some(Duration::from_secs(1)));
        pace.ran(128, Duration::from_millis(200));
        assert_eq!(pace.chunk(target), 64, "further into a prompt each token takes longer");
    }
}
