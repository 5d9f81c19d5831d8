package store

import (
	"fmt"

	"sluice/store/disk"
)

// Records are rows of somebody else's, durable like the objects: accounts, tokens,
// what was audited. They have no history and are part of a backup.
type Records struct {
	store  *Store
	bucket string
}

// RecordsTx is a view of rows at one moment and, in an Update, what changes them. It
// ends with the function that it was given to.
type RecordsTx struct {
	tx     *disk.Tx
	bucket string
}

// Records are the rows of that name, none at first.
func (s *Store) Records(name string) *Records { return &Records{s, recordsRows + name} }

// View calls fn with the rows as they are now.
func (r *Records) View(fn func(RecordsTx) error) error {
	return r.store.disk.View(func(tx *disk.Tx) error { return fn(RecordsTx{tx, r.bucket}) })
}

// Update calls fn with the rows and keeps what it changes, all of it or nothing. It
// is on the disk when Update returns nil. One Update runs at a time.
func (r *Records) Update(fn func(RecordsTx) error) error {
	return r.store.disk.Update(func(tx *disk.Tx) error { return fn(RecordsTx{tx, r.bucket}) })
}

// Get is the row of a key, a copy, and whether there is one.
func (r *Records) Get(key string) (value []byte, ok bool, err error) {
	err = r.View(func(tx RecordsTx) (err error) {
		value, ok, err = tx.Get(key)
		return err
	})
	return value, ok, err
}

// Put sets one row.
func (r *Records) Put(key string, value []byte) error {
	return r.Update(func(tx RecordsTx) error { return tx.Put(key, value) })
}

// Delete removes one row, if there is one.
func (r *Records) Delete(key string) error {
	return r.Update(func(tx RecordsTx) error { return tx.Delete(key) })
}

// Scan is RecordsTx.Scan of the rows as they are now.
func (r *Records) Scan(from string, yield func(key string, value []byte) bool) error {
	return r.View(func(tx RecordsTx) error { return tx.Scan(from, yield) })
}

// ScanBack is RecordsTx.ScanBack of the rows as they are now.
func (r *Records) ScanBack(from string, yield func(key string, value []byte) bool) error {
	return r.View(func(tx RecordsTx) error { return tx.ScanBack(from, yield) })
}

// In is the same transaction on the rows of another name.
func (tx RecordsTx) In(name string) RecordsTx { return RecordsTx{tx.tx, recordsRows + name} }

// Get is the row of a key, a copy, and whether there is one.
func (tx RecordsTx) Get(key string) ([]byte, bool, error) {
	value, ok, err := tx.tx.Get(tx.bucket, []byte(key))
	return value, ok, recordError("get", key, err)
}

// Put sets a row.
func (tx RecordsTx) Put(key string, value []byte) error {
	return recordError("put", key, tx.tx.Put(tx.bucket, []byte(key), value))
}

// Delete removes a row, if there is one.
func (tx RecordsTx) Delete(key string) error {
	return recordError("delete", key, tx.tx.Delete(tx.bucket, []byte(key)))
}

// Scan yields the rows from a key on, in the order of the keys, until yield returns
// false. A value may be read until yield returns; nothing may be changed meanwhile.
func (tx RecordsTx) Scan(from string, yield func(key string, value []byte) bool) error {
	return tx.tx.Ascend(tx.bucket, scanFrom(from), lend(yield))
}

// ScanBack is Scan in the other direction, from the last row that is not above from;
// an empty from means the very last.
func (tx RecordsTx) ScanBack(from string, yield func(key string, value []byte) bool) error {
	return tx.tx.Descend(tx.bucket, scanFrom(from), lend(yield))
}

func scanFrom(from string) []byte {
	if from == "" {
		return nil
	}
	return []byte(from)
}

func lend(yield func(string, []byte) bool) func(key, value []byte) bool {
	return func(key, value []byte) bool { return yield(string(key), value) }
}

func recordError(doing, key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s record %s: %w", doing, quote(key), err)
}
