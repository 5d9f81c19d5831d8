package store

import (
	"encoding/base64"
	"strings"
)

const maxSchemaRefs = 16

func readSchemaSpec(m *mapping, namespace string) SchemaSpec {
	defer m.finish()
	return SchemaSpec{
		BackendRefs:   readSchemaRefs(m.optional("backendRefs"), namespace),
		DescriptorSet: readDescriptorSet(m.required("descriptorSet")),
	}
}

func readSchemaRefs(v *value, namespace string) []SchemaBackendRef {
	items := v.list(maxSchemaRefs)
	refs := each(items, func(v *value) SchemaBackendRef { return readSchemaRef(v.mapping(), namespace) })
	seen := make(map[string]bool, len(refs))
	for i, ref := range refs {
		k := refKey(namespace, ref.Namespace, ref.Name)
		if ref.Name != "" && seen[k] {
			items[i].mapping().optional("name").fault("%s is there already", k)
		}
		seen[k] = true
	}
	return refs
}

func readSchemaRef(m *mapping, namespace string) SchemaBackendRef {
	defer m.finish()
	name := m.required("name")
	ref := SchemaBackendRef{Namespace: m.optional("namespace").wordOr(namespace, checkNamespace), Name: name.word(checkName)}
	if ref.Namespace == "" {
		ref.Name = "" // reported; what it refers to nobody knows
	}
	if !name.absent() {
		ref.Origin = name.position()
	}
	return ref
}

// readDescriptorSet reads base64, which may be broken into lines, and reports what
// does not fit together in the files.
func readDescriptorSet(v *value) []byte {
	text, ok := v.text()
	if !ok {
		return nil
	}
	// Few bytes of text may repeat a set many times: aliases do.
	in := v.doc.in
	if in.descriptors += base64.StdEncoding.DecodedLen(len(text)); in.descriptors > maxDescriptors {
		v.fault("all Schemas together have more than %d bytes of descriptors", maxDescriptors)
		return nil
	}
	set, problem := decodeDescriptorSet(text)
	if problem != "" {
		v.fault("%s", problem)
		return nil
	}
	for _, err := range checkDescriptorSet(set) {
		v.fault("%v", err)
	}
	return set
}

func decodeDescriptorSet(text string) (set []byte, problem string) {
	text = strings.Map(func(r rune) rune {
		if r == ' ' || r == '\n' || r == '\r' || r == '\t' {
			return -1
		}
		return r
	}, text)
	if text == "" {
		return nil, "want a google.protobuf.FileDescriptorSet in base64"
	}
	if len(text) > base64.StdEncoding.EncodedLen(MaxDescriptorSet) {
		return nil, limitOfDescriptors
	}
	set, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, "want a google.protobuf.FileDescriptorSet in base64, with its padding"
	}
	return set, ""
}
