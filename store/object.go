package store

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// ID names an object.
type ID struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// ResourceID is the ID of the object that r declares.
func ResourceID(r Resource) ID {
	m := r.Metadata()
	id := ID{r.Kind(), m.Namespace, m.Name}
	if id.Namespace == "" {
		id.Namespace = DefaultNamespace
	}
	return id
}

// String is "GRPCRoute default/cart".
func (id ID) String() string { return id.Kind + " " + id.Key() }

// Key is "default/cart": what names the object among those of its kind.
func (id ID) Key() string { return key(id.Namespace, id.Name) }

// IsZero tells whether it names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders by kind, namespace and name.
func (id ID) Compare(other ID) int {
	if c := strings.Compare(id.Kind, other.Kind); c != 0 {
		return c
	}
	if c := strings.Compare(id.Namespace, other.Namespace); c != 0 {
		return c
	}
	return strings.Compare(id.Name, other.Name)
}

// normal fills in the namespace and refuses what can name nothing.
func (id ID) normal() (ID, error) {
	if id.Namespace == "" {
		id.Namespace = DefaultNamespace
	}
	if kindIndex(id.Kind) < 0 {
		return id, fmt.Errorf("kind %s: want one of %s", quote(id.Kind), strings.Join(Kinds(), ", "))
	}
	if problem := checkNamespace(id.Namespace); problem != "" {
		return id, fmt.Errorf("namespace %s: %s", quote(id.Namespace), problem)
	}
	if problem := checkName(id.Name); problem != "" {
		return id, fmt.Errorf("name %s: %s", quote(id.Name), problem)
	}
	return id, nil
}

// kinds are all, in the order of their names.
var kinds = [numKinds]string{BackendKind, GRPCRouteKind, HTTPRouteKind, RPCPolicyKind, RegistrationKind, SchemaKind}

const (
	backends = iota // the indexes of kinds
	grpcRoutes
	httpRoutes
	rpcPolicies
	registrations
	schemas
	numKinds
)

// Kinds are the kinds of objects that there are, in the order of their names.
func Kinds() []string { return append([]string(nil), kinds[:]...) }

// kindIndex is where a kind stands in kinds, -1 when there is no such kind.
func kindIndex(kind string) int {
	for i, k := range kinds {
		if k == kind {
			return i
		}
	}
	return -1
}

// OwnerKind says by which way an object is declared.
type OwnerKind string

// A file owns what --resources declares, the API what was applied, and a peer what
// the API of another node was given.
const (
	OwnerFile OwnerKind = "file"
	OwnerAPI  OwnerKind = "api"
	OwnerPeer OwnerKind = "peer"
)

// Owner is who may change what an object declares.
type Owner struct {
	Kind OwnerKind `json:"kind"`
	File string    `json:"file,omitempty"` // file:line
}

// String is "file routes.yaml:12", "api" or "peer".
func (o Owner) String() string {
	if o.File == "" {
		return string(o.Kind)
	}
	return string(o.Kind) + " " + printable(o.File)
}

// Author is who changed something, from where, and why.
type Author struct {
	Actor   string `json:"actor,omitempty"`   // "alice", "token deploy", "local root"
	Via     string `json:"via,omitempty"`     // cli, api, page, file, peer
	Address string `json:"address,omitempty"` // of the client
	Reason  string `json:"reason,omitempty"`  // in the author's words
}

// maxAuthor bounds each text of an Author, in bytes: every change keeps them.
const maxAuthor = 1024

// check refuses texts that would fill the history, or could not be read back.
func (a Author) check() error {
	var list faultList
	for _, text := range [...]struct{ field, value string }{
		{"actor", a.Actor}, {"via", a.Via}, {"address", a.Address}, {"reason", a.Reason},
	} {
		switch {
		case len(text.value) > maxAuthor:
			list.add(Position{}, text.field, "%d bytes, limit %d", len(text.value), maxAuthor)
		case !utf8.ValidString(text.value):
			list.add(Position{}, text.field, "not UTF-8")
		default:
			if problem := checkControls(text.value); problem != "" {
				list.add(Position{}, text.field, "%s: %s", quote(text.value), problem)
			}
		}
	}
	if faults := list.faults(); len(faults) > 0 {
		return faults
	}
	return nil
}

// Object is one object as it is kept, or as a change left it. It does not change any
// more once it is stored, and neither does anything that it refers to.
type Object struct {
	ID       ID
	Revision Revision // of its last change; zero when that was tried only
	Vector   Vector   // what the change had seen, its own revision included
	Owner    Owner
	Deleted  bool     // it is a tombstone
	Resource Resource // nil when deleted
	State    State
	Created  time.Time
	Changed  time.Time
	Author   Author // of its last change
	// Lost are the versions that gave way to this one without having been seen by it, the
	// latest first, until somebody edits the object. They have neither vectors nor lost
	// versions of their own.
	Lost []*Object
	// FileNode is the node whose file declares it, empty when none does or when that is not
	// known.
	FileNode string

	elsewhere *otherWord // nil when other nodes have the same
	checked   bool       // it came from another node and was read strictly

	manifest [sha256.Size]byte // SHA-256 of the resource's JSON, zero when deleted
	// The effective form of the route, with what it was made of.
	effective atomic.Pointer[effectiveForm]
	version   atomic.Pointer[VersionSum] // nil until somebody asks
}

// Manifest is what the object declares, in JSON; nil when it is deleted.
func (o *Object) Manifest() ([]byte, error) {
	if o.Resource == nil {
		return nil, nil
	}
	return o.Resource.MarshalJSON()
}

// live tells whether there is such an object, and it is not deleted.
func (o *Object) live() bool { return o != nil && !o.Deleted }

// same tells whether both declare the same and have the same state.
func (o *Object) same(other *Object) bool {
	return o.Deleted == other.Deleted && o.manifest == other.manifest &&
		o.Owner.OfFile() == other.Owner.OfFile() && o.State.equal(other.State)
}

// copy is a new object to be changed before it is stored.
func (o *Object) copy() *Object {
	return &Object{
		ID: o.ID, Revision: o.Revision, Vector: o.Vector, Owner: o.Owner, Deleted: o.Deleted,
		Resource: o.Resource, State: o.State, Created: o.Created, Changed: o.Changed, Author: o.Author,
		Lost: o.Lost, FileNode: o.FileNode, elsewhere: o.elsewhere, manifest: o.manifest,
	}
}

// setResource gives the object its resource, and the sum of it.
func (o *Object) setResource(r Resource) error {
	manifest, err := r.MarshalJSON()
	if err != nil {
		return fmt.Errorf("encode %s: %w", o.ID, err)
	}
	o.Resource, o.manifest, o.Deleted = r, sha256.Sum256(manifest), false
	return nil
}

// Change is one change of one object.
type Change struct {
	Seq    uint64 // of this node, from 1; 0 when it was tried only
	Time   time.Time
	Action string // create, update, delete, split, drain, undrain, disable, enable, adopt, release, rollback, restore, reassert, forget, settle, conflict
	ID     ID
	Before *Object // nil when there was none, a tombstone when it was deleted
	After  *Object // with the author of the change
	Lost   *Object // of a conflict: the version that gave way to After
}

// The actions that the store names itself; other actions are named by the author.
const (
	ActionCreate   = "create"
	ActionUpdate   = "update"
	ActionDelete   = "delete"
	ActionAdopt    = "adopt"
	ActionRelease  = "release"
	ActionRestore  = "restore"
	ActionReassert = "reassert" // deleted elsewhere, and still declared or alive here; or said under another name
	ActionForget   = "forget"   // deleted elsewhere while this node was away for long
	ActionSettle   = "settle"   // of a conflict: the version that won stays
	ActionConflict = "conflict" // two nodes changed the object unknown to each other
)
