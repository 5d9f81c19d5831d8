package store

import (
	"encoding/json"
	"fmt"
	"time"
)

// Vocabulary says what this version of the program understands of what other nodes send:
// it is raised whenever a kind, or a field of a kind, is added. A row of a higher level
// that cannot be read is of a later version, and no fault.
const Vocabulary = 1

// EncodeForeign is a version of an object as other nodes get it; DecodeForeign reads it.
func EncodeForeign(o *Object) ([]byte, error) { return encodeObject(o) }

// DecodeForeign reads what EncodeForeign of another node wrote, as strictly as a text of
// a user. References may lead nowhere. What depends on what is here, the time for one,
// is looked at by Store.Merge.
func DecodeForeign(id ID, row []byte) (*Object, error) { return decodeObject(id, row) }

// PeekForeign reads of a row what can be read whatever the version that wrote it.
func PeekForeign(row []byte) (revision Revision, seen Vector, deleted bool, changed time.Time, err error) {
	header, _, err := cutPart(row)
	if err != nil {
		return revision, nil, false, changed, fmt.Errorf("read the head of a row: %w", err)
	}
	var h objectRow
	if err := json.Unmarshal(header, &h); err != nil {
		return revision, nil, false, changed, fmt.Errorf("read the head of a row: %w", err)
	}
	return h.Revision, h.Vector, h.Deleted, h.Changed, nil
}
