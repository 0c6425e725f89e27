//! GGUF files with random weights, written for one case.

use std::sync::Arc;

use ollama_wgpu::gguf::Gguf;
use ollama_wgpu::quant::QuantType;

/// A small generator with a fixed stream per seed (SplitMix64, Steele et al. 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x0123_4567_89AB_CDEF)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Uniform in -1 .. 1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// Tensors to be written.
#[derive(Default)]
pub struct File {
    tensors: Vec<(String, Vec<u64>, QuantType, Vec<u8>)>,
}

impl File {
    /// Adds a matrix `[rows, cols]` of plain floats.
    pub fn floats(&mut self, name: &str, rows: usize, cols: usize, values: &[f32]) {
        assert_eq!(values.len(), rows * cols);
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = vec![cols as u64, rows as u64];
        self.tensors
            .push((name.into(), shape, QuantType::F32, bytes));
    }

    /// Adds a matrix of random valid blocks, whose weights are of the order of one.
    pub fn random(
        &mut self,
        name: &str,
        quant: QuantType,
        rows: usize,
        cols: usize,
        r: &mut Random,
    ) {
        let n_blocks = rows * cols / quant.block_len();
        let bytes = (0..n_blocks).flat_map(|_| block(quant, r)).collect();
        let shape = vec![cols as u64, rows as u64];
        self.tensors.push((name.into(), shape, quant, bytes));
    }

    /// Writes the file and opens it. The temporary file is unlinked; the map keeps it alive.
    pub fn open(self) -> Arc<Gguf> {
        let mut head = b"GGUF".to_vec();
        head.extend(3u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend(0u64.to_le_bytes());
        let mut data: Vec<u8> = Vec::new();
        for (name, shape, quant, bytes) in &self.tensors {
            head.extend((name.len() as u64).to_le_bytes());
            head.extend(name.as_bytes());
            head.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|n| head.extend(n.to_le_bytes()));
            head.extend(quant.ggml().to_le_bytes());
            head.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        head.resize(head.len().next_multiple_of(32), 0);
        head.extend(data);
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), head).expect("write the temporary file");
        Arc::new(Gguf::open(file.path()).expect("a valid file"))
    }
}

/// Random bits with scales near one over the largest code, of both signs.
fn block(quant: QuantType, r: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..quant.block_bytes()).map(|_| r.next() as u8).collect();
    let sign = if r.next().is_multiple_of(8) {
        -1.0
    } else {
        1.0
    };
    let mut put = |at: usize, v: f32| {
        bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(v).to_le_bytes());
    };
    let d = sign * (0.5 + r.float().abs());
    match quant {
        QuantType::F32 => return r.float().to_le_bytes().into(),
        QuantType::F16 => put(0, r.float()),
        QuantType::BF16 => return r.float().to_le_bytes()[2..].into(),
        QuantType::Q4_0 => put(0, d / 8.0),
        QuantType::IQ1_S => put(0, d / 16.0),
        QuantType::IQ1_M => {
            // Its factor lies in the upper four bits of each pair of bytes.
            let bits = half::f16::from_f32(d / 16.0).to_bits();
            for i in 0..4 {
                let byte = &mut bytes[49 + 2 * i];
                *byte = *byte & 15 | ((bits >> (4 * i) & 15) as u8) << 4;
            }
        }
        QuantType::IQ2_XXS | QuantType::IQ2_XS | QuantType::IQ2_S => put(0, d / 128.0),
        QuantType::IQ3_XXS => put(0, d / 256.0),
        QuantType::IQ3_S => put(0, d / 256.0),
        QuantType::IQ4_NL => put(0, d / 128.0),
        QuantType::IQ4_XS => put(0, d / 2048.0),
        QuantType::TQ1_0 => put(52, d),
        QuantType::TQ2_0 => put(64, d),
        QuantType::Q1_0 | QuantType::Q2_0 => put(0, d),
        QuantType::MXFP4 => bytes[0] = 124 + bytes[0] % 4,
        // Exponents near that of an eighth, some of them subnormal.
        QuantType::NVFP4 => bytes[..4].iter_mut().for_each(|b| *b %= 48),
        QuantType::Q2_K => {
            put(80, d / 16.0);
            put(82, d / 16.0);
        }
        QuantType::Q3_K => put(108, d / 64.0),
        QuantType::Q5_0 => put(0, d / 16.0),
        QuantType::Q8_0 => put(0, d / 128.0),
        QuantType::Q4_1 | QuantType::Q5_1 => {
            put(0, d / 16.0);
            put(2, -d / 2.0);
        }
        QuantType::Q4_K | QuantType::Q5_K => {
            put(0, d / 512.0);
            put(2, d / 64.0);
        }
        QuantType::Q6_K => put(208, d / 2048.0),
    }
    bytes
}
