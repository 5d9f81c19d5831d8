package store

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

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
	// Token is the ID of the token that announced it first, whoever has changed it since;
	// empty when that was an operator without one.
	Token string `json:"token,omitempty"`
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

// Bounds of the name of a Registration, in bytes.
const (
	maxReadable = 100 // of what a reader recognises
	nameSum     = 10  // of the hash, which makes the name unique
)

// RegistrationName is the name of the Registration of an address at a Backend of that
// name: what a reader recognises, and a hash.
func RegistrationName(backend, address string) string {
	address = NormalAddress(address)
	readable := strings.Map(func(r rune) rune {
		if r < 0x80 && isLower(byte(r)) {
			return r
		}
		return '-'
	}, strings.ToLower(backend+"-"+address))
	if len(readable) > maxReadable {
		readable = readable[:maxReadable]
	}
	sum := sha256.Sum256([]byte(backend + "\x00" + address))
	hash := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:nameSum]))
	if readable = strings.Trim(readable, "-"); readable == "" {
		return hash
	}
	return readable + "-" + hash
}

// NormalAddress is the one way to write an address of an endpoint: "host:port" with the
// host in lower case, or an IP address in its shortest form. What is none stays as it is.
func NormalAddress(s string) string {
	if at, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String()
	}
	return strings.ToLower(s)
}

// backend is the ID of the Backend that the process announces itself to.
func (r *Registration) backend() ID {
	return backendID(DefaultNamespace, r.Namespace, r.Spec.Backend)
}

// check refuses what is no registration, or holds longer than most.
func (r *Registration) check(id ID, most Duration) Faults {
	var list faultList
	r.Spec.check(most, &list)
	if id.Name != RegistrationName(r.Spec.Backend, r.Spec.Address) || NormalAddress(r.Spec.Address) != r.Spec.Address {
		list.add(Position{}, "name", "%s is not the name of a registration of %s at %s", id, quote(r.Spec.Address), quote(r.Spec.Backend))
	}
	return list.faults()
}

// check adds what is wrong with what a process says.
func (s *RegistrationSpec) check(most Duration, list *faultList) {
	for _, text := range [...]struct {
		field, value string
		check        func(string) string
	}{
		{"backend", s.Backend, checkName},
		{"address", s.Address, checkEndpoint},
		{"zone", s.Zone, checkEndpointLabel},
		{"version", s.Version, checkEndpointLabel},
	} {
		if problem := text.check(text.value); problem != "" {
			list.add(Position{}, text.field, "%s: %s", quote(text.value), problem)
		}
	}
	if s.Weight > maxWeight {
		list.add(Position{}, "weight", "%d is out of range, want 0 to %d", s.Weight, maxWeight)
	}
	if s.Lease < Duration(minLease) || s.Lease > most {
		list.add(Position{}, "lease", "%s is out of range, want %s to %s", time.Duration(s.Lease), Duration(minLease), most)
	}
}

// checkRegistration refuses a registration that its Backend does not take.
func (p *plan) checkRegistration(id ID, r *Registration) error {
	to := r.backend()
	o := p.current(to)
	if !o.live() {
		return &NotFoundError{to}
	}
	takes := o.Resource.(*Backend).Spec.registering()
	if takes == nil {
		return Faults{{Field: "backend", Message: fmt.Sprintf("%s takes no registrations: it has no spec.registration", to)}}
	}
	if faults := r.check(id, takes.MaxLease); len(faults) > 0 {
		return faults
	}
	if p.current(id).live() {
		return nil
	}
	if n := len(p.registered(to)); n >= takes.MaxEndpoints {
		return Faults{{Field: "backend", Message: fmt.Sprintf("%s has %d registered endpoints, limit %d (spec.registration.maxEndpoints)", to, n, takes.MaxEndpoints)}}
	}
	return nil
}

// registered has the addresses that are registered with a Backend, as they would be by
// now.
func (p *plan) registered(backend ID) map[string]bool {
	addresses := map[string]bool{}
	for _, r := range p.base.registered(backend) {
		if p.planned[ResourceID(r)] == nil {
			addresses[r.Spec.Address] = true
		}
	}
	for _, o := range p.planned {
		if r, ok := o.Resource.(*Registration); ok && r.backend() == backend {
			addresses[r.Spec.Address] = true
		}
	}
	return addresses
}
