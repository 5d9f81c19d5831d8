package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The buckets of the disk. Beside them each name of Records has one of its own.
const (
	objectRows  = "objects"  // "GRPCRoute/default/cart" → the object, or its tombstone
	changeRows  = "changes"  // sequence → the change
	indexRows   = "index"    // sequence → what is known of the change without reading it
	nodeRows    = "node"     // nodeKey → nodeRow
	recordsRows = "records." // and the name
)

var nodeKey = []byte("state")

// rowFormat is the version of all rows. A higher one is not read. In 1 the drains of a
// Backend were written as State.UnmarshalJSON knows, and there were no Registrations. In
// 2 nothing stood between the header of an object and its manifest.
const rowFormat = 3

// nodeRow is what the node knows of itself. Every change writes it anew.
type nodeRow struct {
	Format    int       `json:"format"`
	Node      string    `json:"node"`
	Seq       uint64    `json:"seq"`            // of the last change
	Clock     Revision  `json:"clock"`          // the highest revision made or seen
	Made      Revision  `json:"made,omitzero"`  // the highest revision made; its Node may be a former name
	Forgotten uint64    `json:"forgotten"`      // the highest sequence that history has dropped
	Until     time.Time `json:"until,omitzero"` // the time of that change
}

// objectRow is an Object without its ID and its resource. After it come the rows of the
// versions that it won over, then the manifest that other nodes have if it is another
// one, then its own.
type objectRow struct {
	Revision Revision  `json:"revision,omitzero"`
	Vector   Vector    `json:"vector,omitempty"`
	Owner    Owner     `json:"owner"`
	Deleted  bool      `json:"deleted,omitempty"`
	State    *State    `json:"state,omitempty"` // nil for none
	Created  time.Time `json:"created"`
	Changed  time.Time `json:"changed"`
	Author   Author    `json:"author"`
	Lost     int       `json:"lost,omitempty"` // how many
	// Elsewhere is the place in a file of another node; nil when there is no such manifest.
	Elsewhere     *string `json:"elsewhere,omitempty"`
	ElsewhereNode string  `json:"elsewhereNode,omitempty"`
	FileNode      string  `json:"fileNode,omitempty"`
}

// changeRow is a Change without its sequence and its objects.
type changeRow struct {
	Time   time.Time `json:"time"`
	Action string    `json:"action"`
	ID     ID        `json:"id"`
}

var errShortRow = errors.New("the row ends too early")

func objectKey(id ID) []byte { return []byte(id.Kind + "/" + id.Namespace + "/" + id.Name) }

func parseObjectKey(key []byte) (ID, error) {
	kind, rest, ok := strings.Cut(string(key), "/")
	namespace, name, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || kindIndex(kind) < 0 {
		return ID{}, fmt.Errorf("key %s names no object", quote(string(key)))
	}
	return ID{kind, namespace, name}, nil
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func parseSeqKey(key []byte) (uint64, error) {
	if len(key) != 8 {
		return 0, fmt.Errorf("key %s is no sequence", quote(string(key)))
	}
	return binary.BigEndian.Uint64(key), nil
}

// appendPart appends a length and that many bytes.
func appendPart(b, part []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}

// cutPart reads what appendPart wrote.
func cutPart(b []byte) (part, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, errShortRow
	}
	b = b[size:]
	return b[:n], b[n:], nil
}

// encodeObject writes a header, and manifests.
func encodeObject(o *Object) ([]byte, error) {
	row, err := o.header()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.ID, err)
	}
	for _, lost := range o.Lost {
		part, err := encodeObject(lost)
		if err != nil {
			return nil, err
		}
		row = appendPart(row, part)
	}
	if o.elsewhere != nil {
		manifest, err := o.elsewhere.resource.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", o.ID, err)
		}
		row = appendPart(row, manifest)
	}
	manifest, err := o.Manifest()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.ID, err)
	}
	return append(row, manifest...), nil
}

// header is the beginning of the object's row.
func (o *Object) header() ([]byte, error) {
	row := objectRow{
		Revision: o.Revision, Vector: o.Vector, Owner: o.Owner, Deleted: o.Deleted,
		Created: o.Created, Changed: o.Changed, Author: o.Author, Lost: len(o.Lost), FileNode: o.FileNode,
	}
	if !o.State.equal(State{}) {
		row.State = &o.State
	}
	if o.elsewhere != nil {
		row.Elsewhere, row.ElsewhereNode = &o.elsewhere.file, o.elsewhere.node
	}
	header, err := json.Marshal(row)
	if err != nil {
		return nil, err
	}
	return appendPart(nil, header), nil
}

func decodeObject(id ID, row []byte) (*Object, error) {
	return decodeVersion(id, row, maxLost(id.Kind))
}

// decodeVersion reads an object that has won over so many versions at most.
func decodeVersion(id ID, row []byte, most int) (*Object, error) {
	header, rest, err := cutPart(row)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", id, err)
	}
	var h objectRow
	if err := json.Unmarshal(header, &h); err != nil {
		return nil, fmt.Errorf("decode %s: %w", id, err)
	}
	o := h.object(id)
	if h.Lost < 0 || h.Lost > most {
		return nil, fmt.Errorf("decode %s: %d versions that lost, limit %d", id, h.Lost, most)
	}
	if rest, err = o.decodeLost(h.Lost, rest); err != nil {
		return nil, err
	}
	if h.Elsewhere != nil {
		var manifest []byte
		if manifest, rest, err = cutPart(rest); err != nil {
			return nil, fmt.Errorf("decode %s: %w", id, err)
		}
		o.elsewhere = &otherWord{manifest: sha256.Sum256(manifest), file: *h.Elsewhere, node: h.ElsewhereNode}
		if o.elsewhere.resource, err = decodeManifest(id, manifest); err != nil {
			return nil, err
		}
	}
	if o.Deleted {
		return o, nil
	}
	if o.Resource, err = decodeManifest(id, rest); err != nil {
		return nil, err
	}
	o.manifest = sha256.Sum256(rest)
	return o, nil
}

// object is what the header says of an object.
func (h *objectRow) object(id ID) *Object {
	o := &Object{
		ID: id, Revision: h.Revision, Vector: h.Vector, Owner: h.Owner, Deleted: h.Deleted,
		Created: h.Created, Changed: h.Changed, Author: h.Author, FileNode: h.FileNode,
	}
	if h.State != nil {
		o.State = *h.State
	}
	return o
}

// decodeLost reads n versions from the beginning of what follows a header.
func (o *Object) decodeLost(n int, rest []byte) ([]byte, error) {
	for range n {
		var part []byte
		var err error
		if part, rest, err = cutPart(rest); err != nil {
			return nil, fmt.Errorf("decode %s: %w", o.ID, err)
		}
		lost, err := decodeVersion(o.ID, part, 0)
		if err != nil {
			return nil, err
		}
		o.Lost = append(o.Lost, lost)
	}
	return rest, nil
}

func decodeManifest(id ID, manifest []byte) (Resource, error) {
	r, err := Decode(id.Kind, manifest)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", id, err)
	}
	if declared := ResourceID(r); declared != id {
		return nil, fmt.Errorf("decode %s: it declares %s", id, declared)
	}
	return r, nil
}

// encodeChange writes a header, then the objects after, before and lost, each of
// them empty when there is none. The row of the first is there already.
func encodeChange(c *Change, after []byte) ([]byte, error) {
	header, err := json.Marshal(changeRow{c.Time, c.Action, c.ID})
	if err != nil {
		return nil, fmt.Errorf("encode the change of %s: %w", c.ID, err)
	}
	row := appendPart(appendPart(nil, header), after)
	for _, o := range [...]*Object{c.Before, c.Lost} {
		var part []byte
		if o != nil {
			if part, err = encodeObject(o); err != nil {
				return nil, err
			}
		}
		row = appendPart(row, part)
	}
	return row, nil
}

func decodeChange(seq uint64, row []byte) (*Change, error) {
	header, rest, err := cutPart(row)
	if err != nil {
		return nil, fmt.Errorf("decode change %d: %w", seq, err)
	}
	var h changeRow
	if err := json.Unmarshal(header, &h); err != nil {
		return nil, fmt.Errorf("decode change %d: %w", seq, err)
	}
	c := &Change{Seq: seq, Time: h.Time, Action: h.Action, ID: h.ID}
	for _, o := range [...]**Object{&c.After, &c.Before, &c.Lost} {
		var part []byte
		if part, rest, err = cutPart(rest); err != nil {
			return nil, fmt.Errorf("decode change %d: %w", seq, err)
		}
		if len(part) == 0 {
			continue
		}
		if *o, err = decodeObject(h.ID, part); err != nil {
			return nil, fmt.Errorf("decode change %d: %w", seq, err)
		}
	}
	return c, nil
}
