// Dapr's JavaScript SDK in gRPC mode against a meshnode: takes the API port and the app id to invoke; prints one JSON object with what
// it saw.
import { CommunicationProtocolEnum, DaprClient, HttpMethod } from "@dapr/dapr";

const [port, callee] = process.argv.slice(2);
const client = new DaprClient({
  daprHost: "127.0.0.1",
  daprPort: port,
  communicationProtocol: CommunicationProtocolEnum.GRPC,
});
const seen = {};

await client.state.save("statestore", [
  { key: "js-key", value: { from: "javascript" } },
  { key: "js-other", value: "text" },
]);
seen.value = await client.state.get("statestore", "js-key");
seen.bulk = (await client.state.getBulk("statestore", ["js-key", "js-missing"])).map((item) => [item.key, item.data]);
await client.state.transaction("statestore", [
  { operation: "upsert", request: { key: "js-tx", value: "in transaction" } },
  { operation: "delete", request: { key: "js-other" } },
]);
seen.transaction = await client.state.get("statestore", "js-tx");
seen.deleted = await client.state.get("statestore", "js-other");
await client.state.delete("statestore", "js-tx");
seen.invoked = await client.invoker.invoke(callee, "echo", HttpMethod.POST, { from: "javascript" });
try {
  await client.state.get("no-such-store", "key");
} catch (error) {
  seen.unknown = String(error.message ?? error);
}
await client.stop();
console.log(JSON.stringify(seen));
