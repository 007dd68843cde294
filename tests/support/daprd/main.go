// A daprd of a few components, for the tests that put one beside a meshnode: Dapr's own program, built from
// its published modules.
package main

import (
	"github.com/dapr/components-contrib/bindings/cron"
	"github.com/dapr/components-contrib/conversation/echo"
	pgconfiguration "github.com/dapr/components-contrib/configuration/postgres"
	redisconfiguration "github.com/dapr/components-contrib/configuration/redis"
	"github.com/dapr/components-contrib/crypto/jwks"
	"github.com/dapr/components-contrib/crypto/localstorage"
	redislock "github.com/dapr/components-contrib/lock/redis"
	"github.com/dapr/components-contrib/nameresolution/hashicorp/consul"
	"github.com/dapr/components-contrib/nameresolution/sqlite"
	memorypubsub "github.com/dapr/components-contrib/pubsub/in-memory"
	"github.com/dapr/components-contrib/pubsub/jetstream"
	"github.com/dapr/components-contrib/pubsub/kafka"
	mqttpubsub "github.com/dapr/components-contrib/pubsub/mqtt3"
	"github.com/dapr/components-contrib/pubsub/rabbitmq"
	redispubsub "github.com/dapr/components-contrib/pubsub/redis"
	"github.com/dapr/components-contrib/secretstores/local/file"
	"github.com/dapr/components-contrib/state/etcd"
	memorystate "github.com/dapr/components-contrib/state/in-memory"
	"github.com/dapr/components-contrib/state/mongodb"
	"github.com/dapr/components-contrib/state/mysql"
	pgstate1 "github.com/dapr/components-contrib/state/postgresql/v1"
	pgstate2 "github.com/dapr/components-contrib/state/postgresql/v2"
	redisstate "github.com/dapr/components-contrib/state/redis"
	sqlitestate "github.com/dapr/components-contrib/state/sqlite"

	"github.com/dapr/dapr/cmd/daprd/app"
	"github.com/dapr/dapr/pkg/components"
	bindings "github.com/dapr/dapr/pkg/components/bindings"
	configuration "github.com/dapr/dapr/pkg/components/configuration"
	conversation "github.com/dapr/dapr/pkg/components/conversation"
	crypto "github.com/dapr/dapr/pkg/components/crypto"
	lock "github.com/dapr/dapr/pkg/components/lock"
	nameresolution "github.com/dapr/dapr/pkg/components/nameresolution"
	pubsub "github.com/dapr/dapr/pkg/components/pubsub"
	secretstores "github.com/dapr/dapr/pkg/components/secretstores"
	state "github.com/dapr/dapr/pkg/components/state"
)

func main() {
	state.DefaultRegistry.RegisterComponent(memorystate.NewInMemoryStateStore, "in-memory")
	state.DefaultRegistry.RegisterComponent(redisstate.NewRedisStateStore, "redis")
	state.DefaultRegistry.RegisterComponent(sqlitestate.NewSQLiteStateStore, "sqlite")
	state.DefaultRegistry.RegisterComponent(mysql.NewMySQLStateStore, "mysql")
	state.DefaultRegistry.RegisterComponent(mongodb.NewMongoDB, "mongodb")
	state.DefaultRegistry.RegisterComponentWithVersions("postgresql", components.Versioning{
		Preferred: components.VersionConstructor{Version: "v2", Constructor: pgstate2.NewPostgreSQLStateStore},
		Others:    []components.VersionConstructor{{Version: "v1", Constructor: pgstate1.NewPostgreSQLStateStore}},
		Default:   "v1",
	})
	state.DefaultRegistry.RegisterComponentWithVersions("etcd", components.Versioning{
		Preferred:  components.VersionConstructor{Version: "v2", Constructor: etcd.NewEtcdStateStoreV2},
		Deprecated: []components.VersionConstructor{{Version: "v1", Constructor: etcd.NewEtcdStateStoreV1}},
		Default:    "v1",
	})
	pubsub.DefaultRegistry.RegisterComponent(memorypubsub.New, "in-memory")
	pubsub.DefaultRegistry.RegisterComponent(redispubsub.NewRedisStreams, "redis")
	pubsub.DefaultRegistry.RegisterComponent(kafka.NewKafka, "kafka")
	pubsub.DefaultRegistry.RegisterComponent(rabbitmq.NewRabbitMQ, "rabbitmq")
	pubsub.DefaultRegistry.RegisterComponent(jetstream.NewJetStream, "jetstream")
	pubsub.DefaultRegistry.RegisterComponent(mqttpubsub.NewMQTTPubSub, "mqtt3")
	secretstores.DefaultRegistry.RegisterComponent(file.NewLocalSecretStore, "local.file")
	configuration.DefaultRegistry.RegisterComponent(redisconfiguration.NewRedisConfigurationStore, "redis")
	configuration.DefaultRegistry.RegisterComponent(pgconfiguration.NewPostgresConfigurationStore, "postgresql")
	lock.DefaultRegistry.RegisterComponent(redislock.NewStandaloneRedisLock, "redis")
	crypto.DefaultRegistry.RegisterComponent(localstorage.NewLocalStorageCrypto, "dapr.localstorage")
	crypto.DefaultRegistry.RegisterComponent(jwks.NewJWKSCrypto, "dapr.jwks")
	nameresolution.DefaultRegistry.RegisterComponent(sqlite.NewResolver, "sqlite")
	nameresolution.DefaultRegistry.RegisterComponent(consul.NewResolver, "consul")
	bindings.DefaultRegistry.RegisterInputBinding(cron.NewCron, "cron")
	conversation.DefaultRegistry.RegisterComponent(echo.NewEcho, "echo")
	app.Run()
}
