//! Sets of KV heads.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A set of players (KV heads by flat index), any number of them, as a bitset.
///
/// Written as hexadecimal, player 0 in the lowest bit, with `ceil(players / 4)` digits, behind the number of players:
/// `5:13` is the set {0, 1, 4} of five players.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Coalition {
    players: usize,
    words: Vec<u64>,
}

/// A text that is no coalition.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no coalition: expected `players:hexadecimal`, such as `5:13`")]
pub struct CoalitionError(String);

impl Coalition {
    /// Nobody.
    pub fn empty(players: usize) -> Self {
        Self { players, words: vec![0; players.div_ceil(64)] }
    }

    /// Everybody.
    pub fn full(players: usize) -> Self {
        Self::from_members(players, 0..players)
    }

    /// The given players; those at or above `players` are left out.
    pub fn from_members(players: usize, members: impl IntoIterator<Item = usize>) -> Self {
        let mut coalition = Self::empty(players);
        members.into_iter().for_each(|player| coalition.insert(player));
        coalition
    }

    /// Number of players of the game.
    pub fn players(&self) -> usize {
        self.players
    }

    /// Number of members.
    pub fn size(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether a player is a member.
    pub fn contains(&self, player: usize) -> bool {
        player < self.players && self.words[player / 64] >> (player % 64) & 1 == 1
    }

    /// Adds a player; one at or above `players` changes nothing.
    pub fn insert(&mut self, player: usize) {
        if player < self.players {
            self.words[player / 64] |= 1 << (player % 64);
        }
    }

    /// Everybody who is not a member.
    pub fn complement(&self) -> Self {
        Self::from_members(self.players, (0..self.players).filter(|&player| !self.contains(player)))
    }

    /// The members, ascending.
    pub fn members(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.players).filter(|&player| self.contains(player))
    }
}

impl fmt::Display for Coalition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.players)?;
        for digit in (0..self.players.div_ceil(4)).rev() {
            write!(f, "{:x}", self.words[digit / 16] >> (4 * (digit % 16)) & 0xf)?;
        }
        Ok(())
    }
}

impl FromStr for Coalition {
    type Err = CoalitionError;

    fn from_str(text: &str) -> Result<Self, CoalitionError> {
        let error = || CoalitionError(text.into());
        let (players, digits) = text.split_once(':').ok_or_else(error)?;
        let players: usize = players.parse().map_err(|_| error())?;
        if digits.len() != players.div_ceil(4) || !digits.is_ascii() {
            return Err(error());
        }
        let mut coalition = Self::empty(players);
        for (digit, character) in digits.chars().rev().enumerate() {
            let bits = character.to_digit(16).ok_or_else(error)?;
            for bit in (0..4).filter(|bit| bits >> bit & 1 == 1) {
                let player = 4 * digit + bit;
                if player >= players {
                    return Err(error());
                }
                coalition.insert(player);
            }
        }
        Ok(coalition)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hexadecimal_has_player_zero_lowest() {
        let coalition = Coalition::from_members(5, [0, 1, 4]);
        assert_eq!(coalition.to_string(), "5:13");
        assert_eq!(coalition.complement().to_string(), "5:0c");
        for wrong in ["", "5", "5:1", "5:33", "x:13", "5:1g", "5:é"] {
            assert!(wrong.parse::<Coalition>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn text_and_complement_round_trip(players in 0usize..300, seed in any::<u64>()) {
            let members = (0..players).filter(|&p| (seed.rotate_left(p as u32 * 7) ^ p as u64) & 1 == 1);
            let coalition = Coalition::from_members(players, members);
            prop_assert_eq!(&coalition.to_string().parse::<Coalition>().unwrap(), &coalition);
            prop_assert_eq!(coalition.size() + coalition.complement().size(), players);
            prop_assert_eq!(&coalition.complement().complement(), &coalition);
            prop_assert_eq!(coalition.members().count(), coalition.size());
        }
    }
}
