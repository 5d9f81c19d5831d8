package cli

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
)

// view is a message of the API as -o json and -o yaml show it: the fields in their
// order, times in RFC 3339, an object as its manifest. Numbers and truths are
// always there; what else is empty is left out.
func view(m proto.Message) (*yaml.Node, error) {
	switch m := m.(type) {
	case *timestamppb.Timestamp:
		return text(m.AsTime().Format(time.RFC3339Nano)), nil
	case *durationpb.Duration:
		return text(m.AsDuration().String()), nil
	case *adminv1.Object:
		return objectView(m)
	}
	return fieldsView(m.ProtoReflect(), nil)
}

// objectView is the manifest, with what the server adds as its status: Apply
// ignores that.
func objectView(o *adminv1.Object) (*yaml.Node, error) {
	n := mapping()
	if o.GetManifest() != "" {
		var err error
		if n, err = readManifest(o.GetManifest()); err != nil {
			return nil, err
		}
	} else {
		metadata := mapping()
		set(metadata, "name", text(o.GetRef().GetName()))
		set(metadata, "namespace", text(o.GetRef().GetNamespace()))
		set(n, "kind", text(o.GetRef().GetKind()))
		set(n, "metadata", metadata)
	}
	status, err := statusView(o)
	remove(n, "status")
	set(n, "status", status)
	return n, err
}

// statusView is what the server knows of an object beside what it declares.
func statusView(o *adminv1.Object) (*yaml.Node, error) {
	status, err := fieldsView(o.ProtoReflect(), []string{"ref", "manifest", "state"})
	if err != nil {
		return nil, err
	}
	if !o.GetDeleted() {
		remove(status, "deleted")
	}
	if o.GetLost() == 0 {
		remove(status, "lost")
	}
	state, err := stateView(o.GetState())
	if len(state.Content) > 0 {
		set(status, "state", state)
	}
	last := lookup(status, "lastChange")
	for _, known := range []string{"sequence", "ref", "revision"} { // from beside it
		remove(last, known)
	}
	arrange(status, "revision", "owner", "state")
	return status, err
}

// bare takes away what the server has added. A creationTimestamp can also have been
// declared: one that says what the server knows anyway is its own.
func bare(n *yaml.Node, created *timestamppb.Timestamp) {
	remove(n, "status")
	metadata := lookup(n, "metadata")
	remove(metadata, "resourceVersion")
	if word(metadata, "creationTimestamp") == created.AsTime().Truncate(time.Second).Format(time.RFC3339) {
		remove(metadata, "creationTimestamp")
	}
}

func fieldsView(m protoreflect.Message, without []string) (*yaml.Node, error) {
	n := mapping()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if slices.Contains(without, string(field.Name())) || !m.Has(field) && isSilent(field) {
			continue
		}
		value, err := fieldView(field, m.Get(field))
		if err != nil {
			return nil, err
		}
		if value != nil {
			set(n, field.JSONName(), value)
		}
	}
	return n, nil
}

// isSilent tells whether a field that is not set says nothing.
func isSilent(field protoreflect.FieldDescriptor) bool {
	if field.HasPresence() || field.IsList() || field.IsMap() {
		return true
	}
	switch field.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind:
		return true
	}
	return false
}

func fieldView(field protoreflect.FieldDescriptor, value protoreflect.Value) (*yaml.Node, error) {
	switch {
	case field.IsList():
		n := sequence()
		for i := range value.List().Len() {
			item, err := scalarView(field, value.List().Get(i))
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		return n, nil
	case field.IsMap():
		return mapView(field, value.Map())
	}
	return scalarView(field, value)
}

func mapView(field protoreflect.FieldDescriptor, m protoreflect.Map) (*yaml.Node, error) {
	type entry struct {
		key   string
		value *yaml.Node
	}
	var entries []entry
	var failed error
	m.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		var n *yaml.Node
		n, failed = scalarView(field.MapValue(), value)
		entries = append(entries, entry{key.String(), n})
		return failed == nil
	})
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	n := mapping()
	for _, e := range entries {
		set(n, e.key, e.value)
	}
	return n, failed
}

func scalarView(field protoreflect.FieldDescriptor, value protoreflect.Value) (*yaml.Node, error) {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return view(value.Message().Interface())
	case protoreflect.StringKind:
		return text(value.String()), nil
	case protoreflect.BoolKind:
		return boolean(value.Bool()), nil
	case protoreflect.EnumKind:
		return text(enumWord(field.Enum(), value.Enum())), nil
	case protoreflect.BytesKind:
		return text(strconv.Itoa(len(value.Bytes())) + " bytes"), nil
	}
	return number(value.String()), nil
}

// enumWord is the value's name without that of its type: ROLE_ADMIN is admin.
func enumWord(enum protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	value := enum.Values().ByNumber(n)
	if value == nil {
		return strconv.Itoa(int(n)) // of a later version
	}
	name := strings.TrimPrefix(string(value.Name()), strings.ToUpper(string(enum.Name()))+"_")
	return strings.ToLower(name)
}

// roleWord is the role as it is typed and shown.
func roleWord(role adminv1.Role) string { return enumWord(role.Descriptor(), role.Number()) }
