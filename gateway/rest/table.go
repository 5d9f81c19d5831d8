package rest

import (
	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// Table finds methods by the paths of their annotations. It does not change.
type Table struct{}

// NewTable compiles the bindings of methods. The errors name the bindings that are
// left out, and those that another one of the same path and verb goes before.
func NewTable(methods []*schema.Method) (*Table, []error) { return &Table{}, nil }

// Match finds the endpoints of a path, as it stands in the request line up to "?", the
// most specific first. When the path has none for the verb, allowed are the verbs
// that it has, sorted; it is empty when the path leads nowhere.
func (t *Table) Match(verb, rawPath string) (found []Match, allowed []string) { return nil, nil }

// Match is an endpoint with what the path says of its message.
type Match struct {
	*Endpoint
}

// For is the same match for the method as another backend describes it. It is false
// when that description does not have the path.
func (m Match) For(method *schema.Method) (Match, bool) { return m, true }

// Implicit is the match of POST /package.Service/Method: the whole message is the body,
// and the whole answer comes back.
func Implicit(method *schema.Method) Match { return Match{&Endpoint{Method: method}} }

// PathFault is what is wrong with a path, if anything: such a path matches nothing. It
// is nil for a path that can be read in one way only.
func PathFault(rawPath string) *wire.Status { return nil }
