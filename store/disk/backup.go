package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Backup writes all rows as they are now to w, as one file that ReadCopy reads, and
// returns how many bytes it wrote. Nobody waits for w.
func (db *DB) Backup(w io.Writer) (n int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up store %q: %w", db.opts.Dir, err)
		}
	}()
	file, err := os.CreateTemp(db.opts.Dir, backupName)
	if err != nil {
		return 0, asFull(err)
	}
	path := file.Name()
	defer func() { err = errors.Join(err, removeIfThere(path)) }()
	if err := file.Close(); err != nil {
		return 0, err
	}
	var size int64
	if _, err := build(path, func(b *builder) (state, error) { return db.fill(b, &size) }); err != nil {
		return 0, err
	}
	file, err = os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return io.Copy(w, file)
}

// ReadCopy verifies the file at path, a copy or a backup, as a whole, and only then
// yields its rows. It is read and not mapped: it may lie anywhere.
func ReadCopy(path string, yield func(bucket string, key, value []byte) error) error {
	im, file, err := openImage(path)
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	defer file.Close()
	if _, err := im.verify(nil); err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	_, err = im.verify(yield)
	return err
}
