package store

import "encoding/json"

// The kind of a Schema.
const (
	SchemaVersion = OwnGroup + "/v1alpha1"
	SchemaKind    = "Schema"
)

// MaxDescriptorSet bounds the descriptors of one Schema, in bytes.
const MaxDescriptorSet = 4 << 20

// Schema says which services there are and of what their messages are made, for
// requests that are translated.
type Schema struct {
	Meta `json:"metadata"`
	Spec SchemaSpec `json:"spec"`
}

// SchemaSpec is the wish itself.
type SchemaSpec struct {
	// BackendRefs are the backends that the schema is for. None means every backend
	// of which nothing better is known.
	BackendRefs []SchemaBackendRef `json:"backendRefs,omitempty"`
	// DescriptorSet is a google.protobuf.FileDescriptorSet; in JSON and YAML, in base64.
	DescriptorSet []byte `json:"descriptorSet"`
}

// SchemaBackendRef names a Backend.
type SchemaBackendRef struct {
	Namespace string `json:"namespace,omitempty"` // the schema's when the text does not say
	Name      string `json:"name"`
	// Origin is where the reference is written.
	Origin Position `json:"-"`
}

// BackendKey is the key of the Backend that ref, one of this schema's, means.
func (s *Schema) BackendKey(ref *SchemaBackendRef) string {
	return refKey(s.Namespace, ref.Namespace, ref.Name)
}

// MarshalJSON writes a manifest that Parse accepts.
func (s *Schema) MarshalJSON() ([]byte, error) {
	type fields Schema
	return json.Marshal(struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		*fields
	}{SchemaVersion, SchemaKind, (*fields)(s)})
}
