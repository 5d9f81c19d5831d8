package cluster

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

const (
	// messageVersion is the form of what this node sends.
	messageVersion = 1
	// maxMessage bounds a message, in bytes; the chunks that are sent are half of it.
	maxMessage = 1 << 20
	maxChunk   = 512 << 10
	// maxSingle bounds a message with a single object: a Schema has up to 16 MiB.
	maxSingle = 18 << 20
	// maxRecords bounds how many of anything one message has. The smallest Entry that
	// means something takes 30 bytes or so.
	maxRecords = 20_000

	// The fields of Message that are bodies: Changes and KeyResponse.
	firstBody, lastBody = 10, 21

	maxNodeLen  = 64   // bytes of a node's ID
	maxNameLen  = 253  // bytes of a name, or of a kind
	maxKinds    = 64   // kinds of objects in a message
	maxTextLen  = 1024 // bytes of an error, an address or a key
	numBuckets  = 256  // groups of the objects of a kind
	contentSize = 32   // bytes of the digest of what is in force
)

// refusalError is what a message is refused with.
type refusalError struct {
	reason reason
	err    error
}

func (e *refusalError) Error() string { return string(e.reason) + ": " + e.err.Error() }
func (e *refusalError) Unwrap() error { return e.err }

func badMessage(format string, args ...any) error {
	return &refusalError{malformed, fmt.Errorf(format, args...)}
}

// encodeMessage makes a message; it cannot fail with what is ours.
func encodeMessage(m *clusterv1.Message) []byte {
	m.Version = messageVersion
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // a text that is not UTF-8, which no object has
		return nil
	}
	return b
}

// decodeMessage reads and checks a message. Its Body is nil when this version does not
// know it. The error is a *refusalError.
func decodeMessage(b []byte) (*clusterv1.Message, error) {
	if err := weigh(b); err != nil {
		return nil, err
	}
	m := &clusterv1.Message{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, &refusalError{malformed, err}
	}
	if m.Version == 0 {
		return nil, badMessage("no version")
	}
	if !isNode(m.From) {
		return nil, badMessage("sender %q", cut(m.From))
	}
	if len(m.Life) > maxNodeLen {
		return nil, badMessage("life of %d bytes, limit %d", len(m.Life), maxNodeLen)
	}
	return m, checkBody(m)
}

// weigh refuses what is too large, or would be once it is decoded: a message of many
// empty records takes a hundred times its length.
func weigh(b []byte) error {
	if len(b) > maxSingle {
		return &refusalError{tooLarge, fmt.Errorf("message of %d bytes, limit %d", len(b), maxSingle)}
	}
	objects, records := 0, 0
	err := eachField(b, func(body protowire.Number, value []byte) error {
		records++
		if body < firstBody || body > lastBody || value == nil {
			return nil
		}
		return eachField(value, func(field protowire.Number, _ []byte) error {
			records++
			if body == firstBody && field == 1 {
				objects++
			}
			return nil
		})
	})
	switch {
	case err != nil:
		return &refusalError{malformed, err}
	case records > maxRecords:
		return &refusalError{tooLarge, fmt.Errorf("message of %d records, limit %d", records, maxRecords)}
	case len(b) > maxMessage && objects != 1:
		return &refusalError{tooLarge, fmt.Errorf("message of %d bytes, limit %d", len(b), maxMessage)}
	}
	return nil
}

// eachField yields the fields of a message; value is nil for those that are numbers.
func eachField(b []byte, yield func(number protowire.Number, value []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		var value []byte
		if kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(b[n:])
		}
		if err := yield(number, value); err != nil {
			return err
		}
		b = b[n+size:]
	}
	return nil
}

// checkBody refuses what no node of good health sends.
func checkBody(m *clusterv1.Message) error {
	switch body := m.Body.(type) {
	case *clusterv1.Message_Changes:
		return checkChanges(body.Changes)
	case *clusterv1.Message_Notice:
		return checkEntries(body.Notice.Entries)
	case *clusterv1.Message_Beat:
		return checkBeat(body.Beat)
	case *clusterv1.Message_Compare:
		return checkCompare(body.Compare)
	case *clusterv1.Message_Inventory:
		return checkInventory(body.Inventory)
	case *clusterv1.Message_Ask:
		return checkNames(body.Ask.Names)
	case *clusterv1.Message_Confirm:
		return checkEntries(body.Confirm.Entries)
	case *clusterv1.Message_Confirmed:
		return checkTexts(body.Confirmed.Error)
	case *clusterv1.Message_Renewed:
		return checkNames(body.Renewed.Names)
	case *clusterv1.Message_Hints:
		return checkHints(body.Hints)
	case *clusterv1.Message_KeyRequest:
		return checkTexts(body.KeyRequest.Key)
	case *clusterv1.Message_KeyResponse:
		return checkTexts(append(body.KeyResponse.Keys, body.KeyResponse.Warning, body.KeyResponse.Error)...)
	}
	return nil
}

func checkChanges(c *clusterv1.Changes) error {
	for _, o := range c.Objects {
		if err := checkName(o.Kind, o.Namespace, o.Name); err != nil {
			return err
		}
		if o.Level == 0 || len(o.Row) == 0 {
			return badMessage("object without a level or a row")
		}
	}
	return errors.Join(checkNames(c.Gone), checkNames(c.Later))
}

func checkEntries(entries []*clusterv1.Entry) error {
	for _, e := range entries {
		if e.Name == nil || e.Revision == nil {
			return badMessage("entry without a name or a revision")
		}
		if err := checkNames([]*clusterv1.Name{e.Name}); err != nil {
			return err
		}
		if err := checkRevision(e.Revision); err != nil {
			return err
		}
	}
	return nil
}

func checkBeat(b *clusterv1.Beat) error {
	if len(b.Digests) > maxKinds {
		return badMessage("digests of %d kinds, limit %d", len(b.Digests), maxKinds)
	}
	for kind := range b.Digests {
		if !isKind(kind) {
			return badMessage("kind %q", cut(kind))
		}
	}
	if len(b.Content) != contentSize {
		return badMessage("digest of %d bytes, want %d", len(b.Content), contentSize)
	}
	for _, r := range [...]*clusterv1.Revision{b.Clock, b.InStep, b.Seen} {
		if r == nil {
			continue
		}
		if err := checkRevision(r); err != nil {
			return err
		}
	}
	return nil
}

func checkCompare(c *clusterv1.Compare) error {
	if len(c.Kinds) > maxKinds {
		return badMessage("sums of %d kinds, limit %d", len(c.Kinds), maxKinds)
	}
	for _, k := range c.Kinds {
		if !isKind(k.Kind) {
			return badMessage("kind %q", cut(k.Kind))
		}
		if len(k.Buckets) != numBuckets {
			return badMessage("sums of %d groups, want %d", len(k.Buckets), numBuckets)
		}
	}
	return nil
}

func checkInventory(i *clusterv1.Inventory) error {
	if !isKind(i.Kind) && !(i.Last && i.Kind == "") {
		return badMessage("kind %q", cut(i.Kind))
	}
	if len(i.Buckets) > numBuckets {
		return badMessage("%d groups, limit %d", len(i.Buckets), numBuckets)
	}
	for _, b := range i.Buckets {
		if b >= numBuckets {
			return badMessage("group %d of %d", b, numBuckets)
		}
	}
	if i.Pieces > maxPieces || i.All && (i.Piece == 0 || i.Piece > i.Pieces) {
		return badMessage("piece %d of %d, limit %d", i.Piece, i.Pieces, maxPieces)
	}
	return checkEntries(i.Entries)
}

func checkNames(names []*clusterv1.Name) error {
	for _, n := range names {
		if err := checkName(n.GetKind(), n.GetNamespace(), n.GetName()); err != nil {
			return err
		}
	}
	return nil
}

func checkName(kind, namespace, name string) error {
	if !isKind(kind) || !isName(namespace) || !isName(name) {
		return badMessage("object %q %q/%q", cut(kind), cut(namespace), cut(name))
	}
	return nil
}

func checkHints(h *clusterv1.Hints) error {
	for _, hint := range h.Hints {
		if len(hint.Backend) > 2*maxNameLen || len(hint.Address) > maxNameLen+len(":65535") {
			return badMessage("hint of %d bytes", len(hint.Backend)+len(hint.Address))
		}
	}
	return nil
}

func checkTexts(texts ...string) error {
	for _, text := range texts {
		if len(text) > maxTextLen {
			return badMessage("text of %d bytes, limit %d", len(text), maxTextLen)
		}
	}
	return nil
}

func checkRevision(r *clusterv1.Revision) error {
	if r.Wall <= 0 || !isNode(r.Node) {
		return badMessage("revision %d.%d@%q", r.Wall, r.Counter, cut(r.Node))
	}
	return nil
}

// isNode tells whether s can be the ID of a node.
func isNode(s string) bool {
	return len(s) > 0 && len(s) <= maxNodeLen && consists(s, func(c byte) bool { return isLower(c) || c == '-' })
}

// isKind tells whether s can be a kind, of whatever version.
func isKind(s string) bool {
	return len(s) > 0 && len(s) <= maxNodeLen && consists(s, func(c byte) bool { return isLower(c) || c >= 'A' && c <= 'Z' })
}

// isName tells whether s can be a name or a namespace, of whatever version; the store
// knows better of its own.
func isName(s string) bool {
	return len(s) > 0 && len(s) <= maxNameLen && consists(s, func(c byte) bool { return isLower(c) || c == '-' || c == '.' })
}

func isLower(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func consists(s string, of func(byte) bool) bool {
	for i := range len(s) {
		if !of(s[i]) {
			return false
		}
	}
	return true
}

// cut is a text of a stranger for a log.
func cut(s string) string { return s[:min(len(s), 80)] }

func wireName(id store.ID) *clusterv1.Name {
	return &clusterv1.Name{Kind: id.Kind, Namespace: id.Namespace, Name: id.Name}
}

func nameID(n *clusterv1.Name) store.ID {
	return store.ID{Kind: n.GetKind(), Namespace: n.GetNamespace(), Name: n.GetName()}
}

func objectID(o *clusterv1.Object) store.ID {
	return store.ID{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
}

func wireRevision(r store.Revision) *clusterv1.Revision {
	return &clusterv1.Revision{Wall: r.Wall, Counter: r.Counter, Node: r.Node}
}

func revisionOf(r *clusterv1.Revision) store.Revision {
	if r == nil {
		return store.Revision{}
	}
	return store.Revision{Wall: r.Wall, Counter: r.Counter, Node: r.Node}
}
