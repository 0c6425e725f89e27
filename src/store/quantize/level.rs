//! The names that `quantize` takes.

use crate::quant::QuantType;

macro_rules! levels {
    ($($level:ident = $file_type:literal: $quant:ident $(or $alias:literal)?;)*) => {
        /// A mixture of types, called as llama.cpp calls it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(non_camel_case_types)]
        pub enum Level {
            $($level),*
        }

        impl Level {
            #[cfg(test)]
            pub const ALL: &[Level] = &[$(Level::$level),*];

            const NAMES: &[&str] = &[$(stringify!($level)),*];

            /// The level of this name, in any case.
            pub fn from_name(name: &str) -> Option<Level> {
                match name.to_ascii_uppercase().as_str() {
                    $(stringify!($level) $(| $alias)? => Some(Level::$level),)*
                    _ => None,
                }
            }

            /// The name, as `general.file_type` is shown.
            pub fn name(self) -> &'static str {
                match self {
                    $(Level::$level => stringify!($level)),*
                }
            }

            /// llama.cpp's number of the mixture, `general.file_type`.
            pub fn file_type(self) -> u32 {
                match self {
                    $(Level::$level => $file_type),*
                }
            }

            /// The type of most tensors.
            pub fn quant(self) -> QuantType {
                match self {
                    $(Level::$level => QuantType::$quant),*
                }
            }
        }
    };
}

levels! {
    F32 = 0: F32;
    F16 = 1: F16;
    BF16 = 32: BF16;
    Q8_0 = 7: Q8_0;
    Q4_0 = 2: Q4_0;
    Q4_1 = 3: Q4_1;
    Q5_0 = 8: Q5_0;
    Q5_1 = 9: Q5_1;
    Q2_K = 10: Q2_K;
    Q3_K_S = 11: Q3_K;
    Q3_K_M = 12: Q3_K or "Q3_K";
    Q3_K_L = 13: Q3_K;
    Q4_K_S = 14: Q4_K;
    Q4_K_M = 15: Q4_K or "Q4_K";
    Q5_K_S = 16: Q5_K;
    Q5_K_M = 17: Q5_K or "Q5_K";
    Q6_K = 18: Q6_K;
}

impl Level {
    /// All names in one line, for messages.
    pub fn names() -> String {
        Level::NAMES.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::facts::file_type_label;

    #[test]
    fn names_are_those_of_file_types() {
        for &level in Level::ALL {
            assert_eq!(Level::from_name(&level.name().to_lowercase()), Some(level));
            assert_eq!(
                file_type_label(Some(level.file_type().into())),
                level.name()
            );
        }
        assert_eq!(Level::from_name("q4_K"), Some(Level::Q4_K_M));
        assert_eq!(Level::from_name("Q9"), None);
    }
}
