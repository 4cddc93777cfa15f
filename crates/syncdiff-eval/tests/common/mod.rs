//! Golden data of the metrics.

#[path = "../../../syncdiff-model/tests/common/find.rs"]
pub(crate) mod find;
#[path = "../../../syncdiff-model/tests/common/plain.rs"]
pub(crate) mod plain;
