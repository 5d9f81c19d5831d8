package store

import "encoding/json"

// RegistrationKind is the kind of a Registration.
const RegistrationKind = "Registration"

// Registration is a process that has announced itself as an endpoint of a Backend. It
// is made by the admin API and never by a manifest, and goes when its lease is over.
type Registration struct {
	Meta `json:"metadata"` // the name is RegistrationName
	Spec RegistrationSpec  `json:"spec"`
}

// RegistrationSpec is what the process says.
type RegistrationSpec struct {
	Backend string   `json:"backend"` // the name of a Backend of the same namespace
	Address string   `json:"address"` // host:port
	Weight  uint32   `json:"weight"`
	Zone    string   `json:"zone,omitempty"`
	Version string   `json:"version,omitempty"`
	Lease   Duration `json:"lease"` // how long it holds without being renewed
}

// MarshalJSON writes what Decode reads.
func (r *Registration) MarshalJSON() ([]byte, error) {
	type fields Registration
	return json.Marshal(struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		*fields
	}{BackendVersion, RegistrationKind, (*fields)(r)})
}
