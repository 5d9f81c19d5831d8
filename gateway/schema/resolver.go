package schema

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// A Schema resolves types for google.protobuf.Any and for extensions: those of its own
// files, and always those of google/protobuf, google/api and google/rpc. It can be the
// Resolver of protojson's and proto's options.

// FindMessageByName implements protoregistry.MessageTypeResolver.
func (s *Schema) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	d, err := s.files.FindDescriptorByName(name)
	if err != nil {
		if mt := standardMessage(name); mt != nil {
			return mt, nil
		}
		return nil, protoregistry.NotFound
	}
	m, ok := d.(protoreflect.MessageDescriptor)
	if !ok || s.missing(m) != "" {
		return nil, protoregistry.NotFound
	}
	return messageType(m), nil
}

// FindMessageByURL implements protoregistry.MessageTypeResolver: what follows the last
// slash is the name.
func (s *Schema) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	return s.FindMessageByName(protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:]))
}

// FindExtensionByName implements protoregistry.ExtensionTypeResolver.
func (s *Schema) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return s.usable(s.types.FindExtensionByName(name))
}

// FindExtensionByNumber implements protoregistry.ExtensionTypeResolver.
func (s *Schema) FindExtensionByNumber(message protoreflect.FullName, number protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return s.usable(s.types.FindExtensionByNumber(message, number))
}

// usable is an extension whose types are all there.
func (s *Schema) usable(xt protoreflect.ExtensionType, err error) (protoreflect.ExtensionType, error) {
	if err != nil {
		return nil, protoregistry.NotFound
	}
	x := xt.TypeDescriptor()
	if placeholder(x) != "" || x.ContainingMessage().IsPlaceholder() || x.Message() != nil && s.missing(x.Message()) != "" {
		return nil, protoregistry.NotFound
	}
	return xt, nil
}

// messageType makes messages of a descriptor, by generated code where the descriptor is
// its own.
func messageType(d protoreflect.MessageDescriptor) protoreflect.MessageType {
	if mt := standardMessage(d.FullName()); mt != nil && mt.Descriptor() == d {
		return mt
	}
	return dynamicpb.NewMessageType(d)
}
