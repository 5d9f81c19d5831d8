package rest

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// appendMask appends the FieldMask of a PATCH that does not bring one: the fields that its
// body gives, as grpc-gateway does it. The body has been read, so it has no faults; what
// was let pass as unknown is no field. left is how many bytes the message may still have.
func (e *Endpoint) appendMask(dst, body []byte, left int) ([]byte, *codecFault) {
	m := maskReader{jsonText: jsonText{in: body}, left: left}
	if !isBlank(body) {
		m.message(e.body.sub())
	}
	if m.left < 0 {
		return dst, &codecFault{what: "with the mask of the fields that it gives, the message is larger than the limit", at: -1, tooLarge: true}
	}
	slices.Sort(m.paths)
	dst, start := openLength(append(dst, e.mask.tag...))
	for _, path := range m.paths {
		dst = protowire.AppendString(append(dst, 1<<3|byte(protowire.BytesType)), path)
	}
	return closeLength(dst, start), nil
}

// maskReader collects the paths of the fields that a document gives.
type maskReader struct {
	jsonText
	path  []byte // of the value that is read
	paths []string
	// left is how many bytes of the message the paths may have. A path has the names of all
	// that its field lies in, so that few bytes of a document can mean many.
	left int
}

// message goes over a value that stands for a message. An object of fields is followed;
// an empty one, and all that is a value in itself, ends the path: the names in a
// google.protobuf.Struct are no fields.
func (m *maskReader) message(p *messagePlan) {
	if m.next() != '{' || p.form != formObject && p.form != formEmpty {
		m.leaf()
		return
	}
	if m.open('{', "") != nil {
		return
	}
	for first := true; m.left >= 0; first = false {
		more, fault := m.more('}', first)
		if fault != nil {
			return
		}
		if !more {
			if first {
				m.take()
			}
			return
		}
		name, fault := m.member()
		if fault != nil {
			return
		}
		m.field(p.byName[string(name)])
	}
}

// field goes over the value of a field, which is nil when it is unknown.
func (m *maskReader) field(f *fieldPlan) {
	if f == nil {
		_ = m.skip() // it has been read before
		return
	}
	outer := len(m.path)
	if outer > 0 {
		m.path = append(m.path, '.')
	}
	m.path = append(m.path, f.desc.Name()...)
	if f.isMessage() && !f.list && !f.mapped {
		m.message(f.sub())
	} else {
		m.leaf()
	}
	m.path = m.path[:outer]
}

// leaf goes over a value that ends its path.
func (m *maskReader) leaf() {
	_ = m.skip() // it has been read before
	m.take()
}

// take adds the path, unless it is that of the whole body.
func (m *maskReader) take() {
	if len(m.path) == 0 {
		return
	}
	if m.left -= 1 + protowire.SizeBytes(len(m.path)); m.left >= 0 {
		m.paths = append(m.paths, string(m.path))
	}
}
