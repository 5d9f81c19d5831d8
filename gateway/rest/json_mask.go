package rest

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// appendMask appends the FieldMask of a PATCH that does not bring one: the fields that its
// body gives, as grpc-gateway does it. The body has been read, so it has no faults; what
// was let pass as unknown is no field.
func (e *Endpoint) appendMask(dst, body []byte) []byte {
	m := maskReader{jsonText: jsonText{in: body}}
	if !isBlank(body) {
		m.message(e.body.sub(), "")
	}
	slices.Sort(m.paths)
	dst, start := openLength(append(dst, e.mask.tag...))
	for _, path := range m.paths {
		dst = protowire.AppendString(append(dst, 1<<3|byte(protowire.BytesType)), path)
	}
	return closeLength(dst, start)
}

// maskReader collects the paths of the fields that a document gives.
type maskReader struct {
	jsonText
	paths []string
}

// message goes over a value that stands for a message. An object of fields is followed;
// an empty one, and all that is a value in itself, ends the path.
func (m *maskReader) message(p *messagePlan, path string) {
	if m.next() != '{' || p.form == formAny {
		m.leaf(path)
		return
	}
	blind := p.form != formObject && p.form != formEmpty // a Struct's names are no fields
	if m.open('{', "") != nil {
		return
	}
	for first := true; ; first = false {
		more, fault := m.more('}', first)
		if fault != nil {
			return
		}
		if !more {
			if first && path != "" {
				m.paths = append(m.paths, path)
			}
			return
		}
		name, fault := m.member()
		if fault != nil {
			return
		}
		if blind {
			m.blind(join(path, string(name)))
		} else {
			m.field(p.byName[string(name)], path)
		}
	}
}

// field goes over the value of a field, which is nil when it is unknown.
func (m *maskReader) field(f *fieldPlan, path string) {
	if f == nil {
		_ = m.skip() // it has been read before
		return
	}
	path = join(path, string(f.desc.Name()))
	if f.isMessage() && !f.list && !f.mapped {
		m.message(f.sub(), path)
		return
	}
	m.leaf(path)
}

// blind goes over a value within a google.protobuf.Struct.
func (m *maskReader) blind(path string) {
	if m.next() != '{' {
		m.leaf(path)
		return
	}
	m.message(blindPlan, path)
}

// blindPlan stands for objects whose names are anything.
var blindPlan = &messagePlan{form: formStruct}

func (m *maskReader) leaf(path string) {
	_ = m.skip() // it has been read before
	if path != "" {
		m.paths = append(m.paths, path)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
