package main

import (
	"context"
	"log"
	"net"
	"os"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

var known = map[string]map[string]string{
	"database": {"user": "ann", "password": "topsecret"},
	"token":    {"token": "opensesame"},
}

type secrets struct {
	components.UnimplementedSecretStoreServer
	life
}

func (s *secrets) Init(
	_ context.Context, request *components.SecretStoreInitRequest,
) (*components.SecretStoreInitResponse, error) {
	return &components.SecretStoreInitResponse{}, s.begin(request.GetMetadata().GetProperties())
}

func (s *secrets) Features(
	context.Context, *components.FeaturesRequest,
) (*components.FeaturesResponse, error) {
	return &components.FeaturesResponse{Features: []string{"MULTIPLE_KEY_VALUES_PER_SECRET"}}, s.check()
}

func (s *secrets) Get(
	_ context.Context, request *components.GetSecretRequest,
) (*components.GetSecretResponse, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	values, ok := known[request.GetKey()]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such secret")
	}
	return &components.GetSecretResponse{Data: values}, nil
}

func (s *secrets) BulkGet(
	context.Context, *components.BulkGetSecretRequest,
) (*components.BulkGetSecretResponse, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	all := map[string]*components.SecretResponse{}
	for name, values := range known {
		all[name] = &components.SecretResponse{Secrets: values}
	}
	return &components.BulkGetSecretResponse{Data: all}, nil
}

func serveSecrets(path string) {
	os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	components.RegisterSecretStoreServer(server, &secrets{})
	reflection.Register(server)
	log.Fatal(server.Serve(listener))
}
