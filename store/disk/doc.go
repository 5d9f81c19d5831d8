// Package disk keeps rows durably: buckets of keys and values, changed in
// transactions that are on the disk when Update returns, and found again after a
// crash, a damage or a full disk.
package disk
