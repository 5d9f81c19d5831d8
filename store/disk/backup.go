package disk

import "fmt"

// ReadCopy verifies the file at path, a copy or a backup, as a whole, and only then
// yields its rows.
func ReadCopy(path string, yield func(bucket string, key, value []byte) error) error {
	if err := Verify(path); err != nil {
		return err
	}
	im, file, err := openImage(path)
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	defer file.Close()
	_, err = im.verify(yield)
	return err
}
