use super::*;

/// Writes a GGUF header by hand, field by field, so that any of them can be wrong.
#[derive(Default)]
struct File {
    bytes: Vec<u8>,
}

impl File {
    fn new(n_tensors: u64, n_keys: u64) -> File {
        let mut file = File {
            bytes: b"GGUF".to_vec(),
        };
        file.u32(3);
        file.u64(n_tensors);
        file.u64(n_keys);
        file
    }

    fn u32(&mut self, v: u32) -> &mut Self {
        self.bytes.extend(v.to_le_bytes());
        self
    }

    fn u64(&mut self, v: u64) -> &mut Self {
        self.bytes.extend(v.to_le_bytes());
        self
    }

    fn text(&mut self, s: &str) -> &mut Self {
        self.u64(s.len() as u64);
        self.bytes.extend(s.as_bytes());
        self
    }

    fn tensor(&mut self, name: &str, shape: &[u64], kind: u32, offset: u64) -> &mut Self {
        self.text(name).u32(shape.len() as u32);
        for &extent in shape {
            self.u64(extent);
        }
        self.u32(kind).u64(offset)
    }

    fn data(&mut self, n: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(32), 0);
        self.bytes.resize(self.bytes.len() + n, 7);
        self
    }

    fn open(&self) -> Result<Gguf, Error> {
        open_bytes(&self.bytes)
    }

    fn refusal(&self) -> String {
        self.open()
            .expect_err("the file must be refused")
            .to_string()
    }
}

fn open_bytes(bytes: &[u8]) -> Result<Gguf, Error> {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), bytes).expect("write");
    Gguf::open(file.path())
}

fn good() -> File {
    let mut file = File::new(1, 4);
    file.text("general.architecture").u32(8).text("llama");
    file.text("llama.rope.freq_base")
        .u32(6)
        .u32(1e4f32.to_bits());
    file.text("tokenizer.ggml.tokens").u32(9).u32(8).u64(2);
    file.text("a").text("bc");
    file.text("ids").u32(9).u32(5).u64(3);
    file.u32(1).u32(2).u32(-3i32 as u32);
    file.tensor("w", &[32, 2], 8, 0).data(68);
    file
}

#[test]
fn a_good_file_opens() {
    let gguf = good().open().expect("opens");
    assert_eq!(gguf.architecture(), "llama");
    assert_eq!(gguf.f32("llama.rope.freq_base"), Some(10000.0));
    let tokens: Vec<_> = gguf
        .strings("tokenizer.ggml.tokens")
        .expect("array")
        .collect();
    assert_eq!(tokens, [&b"a"[..], b"bc"]);
    assert_eq!(gguf.i32s("ids"), Some(vec![1, 2, -3]));
    assert_eq!(gguf.u32s("ids"), None, "-3 is no u32");
    let tensor = gguf.tensor("w").expect("tensor");
    assert_eq!((tensor.bytes, tensor.quant()), (68, Some(QuantType::Q8_0)));
    assert_eq!(gguf.data(tensor), [7; 68]);
}

#[test]
fn every_truncation_is_refused() {
    let file = good();
    for n in 0..file.bytes.len() {
        let error = open_bytes(&file.bytes[..n]).expect_err("truncated");
        assert!(!error.to_string().is_empty());
    }
}

/// Flipping any byte of the header either still opens or is refused: no panic, and every tensor
/// of a file that opens can be read.
#[test]
fn every_flipped_byte_is_survived() {
    let file = good();
    for i in 0..file.bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = file.bytes.clone();
            bytes[i] = value;
            if let Ok(gguf) = open_bytes(&bytes) {
                for tensor in gguf.tensors() {
                    assert_eq!(gguf.data(tensor).len() as u64, tensor.bytes);
                }
                for key in gguf.metadata().keys() {
                    let n = gguf.strings(key).map_or(0, |items| items.count());
                    assert!(n <= bytes.len());
                }
            }
        }
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    assert!(
        open_bytes(b"GGML....")
            .expect_err("magic")
            .to_string()
            .contains("magic")
    );
    let mut version = File::new(0, 0);
    version.bytes[4] = 1;
    assert!(version.refusal().contains("version 1"));
    assert!(
        File::new(u64::MAX, 0)
            .refusal()
            .contains("number of tensors")
    );
    assert!(File::new(0, 1 << 40).refusal().contains("metadata keys"));
}

#[test]
fn bad_values_are_refused_by_key() {
    let mut long = File::new(0, 1);
    long.text("k").u32(8).u64(1 << 50);
    assert!(long.refusal().contains("the value of k"));
    let mut array = File::new(0, 1);
    array.text("big").u32(9).u32(4).u64(1 << 23);
    assert!(array.refusal().contains("big"));
    let mut nested = File::new(0, 1);
    nested.text("n").u32(9).u32(9).u64(1);
    assert!(nested.refusal().contains("unknown type 9"));
    let mut twice = File::new(0, 2);
    twice.text("k").u32(4).u32(1).text("k").u32(4).u32(1);
    assert!(twice.refusal().contains("twice"));
    let mut nan = File::new(0, 1);
    nan.text("k").u32(6).u32(f32::NAN.to_bits());
    assert!(nan.refusal().contains("finite"));
    let mut align = File::new(0, 1);
    align.text("general.alignment").u32(4).u32(24);
    assert!(align.refusal().contains("alignment"));
}

#[test]
fn bad_tensors_are_refused_by_name() {
    let refusal = |shape: &[u64], kind, offset| {
        let mut file = File::new(1, 0);
        file.tensor("blk.0.w", shape, kind, offset).data(64);
        file.refusal()
    };
    assert!(refusal(&[64, 64], 0, 0).contains("blk.0.w"));
    assert!(refusal(&[4], 0, 1 << 60).contains("outside the file"));
    assert!(refusal(&[4], 0, 7).contains("alignment"));
    assert!(refusal(&[u64::MAX, 2], 0, 0).contains("overflows"));
    assert!(refusal(&[33], 2, 0).contains("blocks have 32"));
    assert!(refusal(&[0, 4], 0, 0).contains("zero"));
    assert!(refusal(&[256], 9, 0).contains("type Q8_1"));
    assert!(refusal(&[256], 99, 0).contains("type number 99"));
    assert!(refusal(&[1; 5], 0, 0).contains("5 extents"));
}

#[test]
fn folders_and_missing_files_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    assert!(Gguf::open(folder.path()).is_err());
    let missing = folder.path().join("none.gguf");
    let text = Gguf::open(&missing).expect_err("missing").to_string();
    assert!(text.contains("none.gguf"), "{text}");
}
