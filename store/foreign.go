package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Vocabulary says what this version of the program understands of what other nodes send:
// it is raised whenever a kind, or a field of a kind, is added. A row of a higher level
// that cannot be read is of a later version, and no fault.
const Vocabulary = 1

const (
	// maxForeign bounds the row of one object of another node, in bytes: a Schema, and one
	// that lost to it.
	maxForeign = 17 << 20
	// maxNodes bounds how many nodes may ever have changed one object.
	maxNodes = 1000
)

// EncodeForeign is a version of an object as other nodes get it; DecodeForeign reads it.
// What a file here says in place of it stays here.
func EncodeForeign(o *Object) ([]byte, error) {
	t := o.travelling().copy()
	t.Owner = t.Owner.foreign()
	t.Lost = make([]*Object, len(o.Lost))
	for i, lost := range o.Lost {
		t.Lost[i] = lost.copy()
		t.Lost[i].Owner = lost.Owner.foreign()
	}
	row, err := encodeObject(t)
	if err == nil && len(row) > maxForeign {
		err = fmt.Errorf("encode %s for other nodes: %d bytes, limit %d", o.ID, len(row), maxForeign)
	}
	return row, err
}

// PeekForeign reads of a row what can be read whatever the version that wrote it.
func PeekForeign(row []byte) (revision Revision, seen Vector, deleted bool, changed time.Time, err error) {
	var head struct {
		Revision Revision  `json:"revision"`
		Vector   Vector    `json:"vector"`
		Deleted  bool      `json:"deleted"`
		Changed  time.Time `json:"changed"`
	}
	header, _, err := cutForeign(row)
	if err == nil {
		err = json.Unmarshal(header, &head)
	}
	if err == nil {
		err = checkPast(head.Revision, head.Vector)
	}
	if err != nil {
		return revision, nil, false, changed, fmt.Errorf("read the head of a row: %w", err)
	}
	return head.Revision, head.Vector, head.Deleted, head.Changed, nil
}

func cutForeign(row []byte) (header, rest []byte, err error) {
	if len(row) > maxForeign {
		return nil, nil, fmt.Errorf("a row of %d bytes, limit %d", len(row), maxForeign)
	}
	return cutPart(row)
}

// checkPast refuses a revision that is not part of what it has seen, or has seen later
// ones.
func checkPast(r Revision, seen Vector) error {
	if r.IsZero() || !isNode(r.Node) || !seen.Seen(r) {
		return fmt.Errorf("revision %s is not part of its own past", r)
	}
	if len(seen) > maxNodes {
		return fmt.Errorf("it has seen %d nodes, limit %d", len(seen), maxNodes)
	}
	for node, s := range seen {
		if node != s.Node || !isNode(node) {
			return fmt.Errorf("it has seen %s of node %s", s, quote(node))
		}
		if s.Compare(r) > 0 {
			return fmt.Errorf("revision %s has seen the later %s", r, s)
		}
	}
	return nil
}

// DecodeForeign reads what EncodeForeign of another node wrote, as strictly as a text of
// a user. References may lead nowhere. What depends on what is here, the time for one,
// is looked at by Store.Merge.
func DecodeForeign(id ID, row []byte) (*Object, error) {
	if normal, err := id.normal(); err != nil || normal != id {
		return nil, errors.Join(fmt.Errorf("decode %s: not the ID of an object", printable(id.String())), err)
	}
	o, err := decodeForeign(id, row, maxLost(id.Kind))
	if err == nil {
		err = o.checkVersion()
	}
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", id, err)
	}
	return o, nil
}

// decodeForeign reads a row of one that has won over so many versions at most.
func decodeForeign(id ID, row []byte, most int) (*Object, error) {
	header, rest, err := cutForeign(row)
	if err != nil {
		return nil, err
	}
	h := foreignHead{}
	if err := decodeStrictly(header, &h); err != nil {
		return nil, err
	}
	o := h.object(id)
	if o.State, err = h.state(); err != nil {
		return nil, err
	}
	if h.Lost < 0 || h.Lost > most || h.Elsewhere != nil {
		return nil, fmt.Errorf("%d versions that lost, limit %d", h.Lost, most)
	}
	for range h.Lost {
		var part []byte
		if part, rest, err = cutPart(rest); err != nil {
			return nil, err
		}
		lost, err := decodeForeign(id, part, 0)
		if err != nil {
			return nil, fmt.Errorf("a version that lost: %w", err)
		}
		o.Lost = append(o.Lost, lost)
	}
	return o, o.declareForeign(rest)
}

// foreignHead is an objectRow whose state is read by itself, and strictly.
type foreignHead struct {
	objectRow
	State json.RawMessage `json:"state"`
}

func (h *foreignHead) state() (State, error) {
	type fields State // not what older versions kept
	var s fields
	if len(h.State) == 0 {
		return State{}, nil
	}
	err := decodeStrictly(h.State, &s)
	return State(s).normal(), err
}

// decodeStrictly reads JSON that has what v has, and nothing else.
func decodeStrictly(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errors.New(libraryMessage(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the end of the JSON")
	}
	return nil
}

// declareForeign reads the manifest, and keeps it in the form in which this version
// writes it: what is the same has the same digest everywhere.
func (o *Object) declareForeign(manifest []byte) error {
	o.checked = true
	if o.Deleted {
		if len(manifest) > 0 {
			return errors.New("a deletion with a manifest")
		}
		return nil
	}
	r, err := parseForeign(o.ID, manifest)
	if err != nil {
		return err
	}
	if declared := ResourceID(r); declared != o.ID {
		return fmt.Errorf("it declares %s", declared)
	}
	return o.setResource(withMeta(r, keepMeta))
}

func parseForeign(id ID, manifest []byte) (Resource, error) {
	if id.Kind == RegistrationKind {
		return parseRegistration(manifest)
	}
	set, faults := Parse("", manifest)
	if len(faults) > 0 {
		return nil, faults[:min(len(faults), maxForeignFaults)]
	}
	all := set.Resources()
	if len(all) != 1 || len(set.Ignored) > 0 {
		return nil, fmt.Errorf("a manifest of %d objects, want one", len(all)+len(set.Ignored))
	}
	text, err := withMeta(all[0], keepMeta).MarshalJSON()
	if err != nil {
		return nil, err
	}
	return Decode(id.Kind, text) // without the places in the text
}

// maxForeignFaults is how many faults of one object of another node are told of.
const maxForeignFaults = 3

// parseRegistration reads a Registration, which is no text of a user.
func parseRegistration(manifest []byte) (*Registration, error) {
	type fields Registration
	var r Registration
	text := struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		*fields
	}{fields: (*fields)(&r)}
	if err := decodeStrictly(manifest, &text); err != nil {
		return nil, err
	}
	if text.Kind != RegistrationKind || text.APIVersion != BackendVersion {
		return nil, fmt.Errorf("%s of %s: want %s of %s", quote(text.Kind), quote(text.APIVersion), RegistrationKind, BackendVersion)
	}
	return &r, nil
}
